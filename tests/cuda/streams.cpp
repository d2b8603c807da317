// Streams, each with a thread that does its work in order and later than the call that asked for it; events.
#include "sim.h"
#include <chrono>
#include <unistd.h>

double now_ms() { return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

static void finish(Work &work) {
    double now = now_ms();
    for (auto &point : work.points) {
        if (point->done) continue;
        point->done = true;
        point->ms = now;
    }
    work.point->done = true;
    work.point->ms = now;
}

CUresult perform(Context *context, Work &work) {
    switch (work.kind) {
    case Work::Kernel: {
        if (CUresult code = planned("kernel")) return code;
        return run_kernel(work.launch);
    }
    case Work::Copy: {
        if (CUresult code = planned("copy")) return code;
        Lock lock(state().lock);
        if (check_copy("copy", work.copy)) return CUDA_ERROR_ILLEGAL_ADDRESS;
        lock.unlock();
        do_copy(work.copy);
        return 0;
    }
    case Work::Fill: {
        if (CUresult code = planned("fill")) return code;
        Lock lock(state().lock);
        if (check_fill(work.fill)) return CUDA_ERROR_ILLEGAL_ADDRESS;
        lock.unlock();
        do_fill(work.fill);
        return 0;
    }
    case Work::Graph: return perform_graph(context, work);
    case Work::Empty:
    case Work::Record:
    case Work::Wait: return 0;
    }
    return CUDA_ERROR_UNKNOWN;
}

static void run_stream(Stream *stream) {
    Context *context = stream->context;
    Lock lock(state().lock);
    for (;;) {
        stream->wake.wait(lock, [&] { return !stream->queue.empty() || stream->closing; });
        if (stream->queue.empty()) break;
        Work work = std::move(stream->queue.front());
        stream->queue.pop_front();
        if (work.kind == Work::Wait) {
            state().done.wait(lock, [&] { return work.points[0]->done || context->error; });
        } else if (!context->error) {
            lock.unlock();
            if (config().delay_us) usleep((useconds_t)config().delay_us);
            CUresult code = perform(context, work);
            lock.lock();
            if (code && !context->error) context->error = code;
        }
        if (work.kind == Work::Wait) work.points.clear();
        finish(work);
        --context->pending;
        state().done.notify_all();
    }
    lock.unlock();
    end_of_worker();
    lock.lock();
    --context->workers;
    state().done.notify_all();
}

static CUresult make_stream(Context *context, unsigned flags, Stream *&stream) {
    stream = new Stream{context, flags, {}, nullptr, false, {}};
    state().streams.insert(stream);
    ++context->workers;
    std::thread(run_stream, stream).detach();
    return 0;
}

CUresult stream_of(Context *context, CUstream handle, Stream *&stream) {
    if ((uintptr_t)handle <= 2) {
        if (!context->null_stream) make_stream(context, 0, context->null_stream);
        stream = context->null_stream;
        return 0;
    }
    if (!state().streams.count(handle)) return CUDA_ERROR_INVALID_HANDLE;
    if (handle->context != context) return CUDA_ERROR_INVALID_CONTEXT;
    stream = handle;
    return 0;
}

static void push(Stream *stream, Work work) {
    work.point = work.point ? work.point : std::make_shared<Point>();
    stream->last = work.point;
    ++stream->context->pending;
    stream->queue.push_back(std::move(work));
    stream->wake.notify_one();
}

CUresult submit(Lock &lock, Context *context, CUstream handle, Work work) {
    Stream *stream = nullptr;
    if (CUresult code = stream_of(context, handle, stream)) return code;
    bool null = stream == context->null_stream;
    if (null) wait_idle(lock, context);
    if (work.kind == Work::Graph) {
        Exec *exec = work.exec;
        if (exec->last && !exec->last->done && exec->stream != stream) {
            Work wait;
            wait.kind = Work::Wait;
            wait.points.push_back(exec->last);
            push(stream, std::move(wait));
        }
        exec->last = work.point = std::make_shared<Point>();
        exec->stream = stream;
    }
    push(stream, std::move(work));
    if (null) wait_idle(lock, context);
    return 0;
}

void wait_idle(Lock &lock, Context *context) {
    state().done.wait(lock, [&] { return context->pending == 0; });
}

void close_streams_of(Lock &lock, Context *context) {
    auto &streams = state().streams;
    for (auto at = streams.begin(); at != streams.end();) {
        Stream *stream = *at;
        at = stream->context == context ? streams.erase(at) : std::next(at);
        if (stream->context != context) continue;
        stream->closing = true;
        stream->wake.notify_one();
    }
    state().done.wait(lock, [&] { return context->workers == 0; });
}

API CUresult cuStreamCreate(CUstream *out, unsigned flags) {
    ENTER_CONTEXT();
    if (!out || flags > 1) return CUDA_ERROR_INVALID_VALUE;
    return make_stream(context, flags, *out);
}

API CUresult cuStreamDestroy_v2(CUstream stream) {
    ENTER_RELEASE();
    if (!state().streams.count(stream) || stream == context->null_stream) return sticky ? sticky : CUDA_ERROR_INVALID_HANDLE;
    state().streams.erase(stream);
    stream->closing = true;
    stream->wake.notify_one();
    return sticky;
}

API CUresult cuStreamSynchronize(CUstream handle) {
    ENTER_CONTEXT();
    Stream *stream = nullptr;
    if (CUresult code = stream_of(context, handle, stream)) return code;
    if (stream == context->null_stream) wait_idle(lock, context);
    std::shared_ptr<Point> last = stream->last;
    if (last) state().done.wait(lock, [&] { return last->done; });
    return context->error;
}

API CUresult cuStreamQuery(CUstream handle) {
    ENTER_CONTEXT();
    Stream *stream = nullptr;
    if (CUresult code = stream_of(context, handle, stream)) return code;
    return stream->last && !stream->last->done ? CUDA_ERROR_NOT_READY : 0;
}

static CUresult event_of(Context *context, CUevent event) {
    if (!state().events.count(event)) return CUDA_ERROR_INVALID_HANDLE;
    return event->context == context ? 0 : CUDA_ERROR_INVALID_CONTEXT;
}

API CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned flags) {
    ENTER_CONTEXT();
    if (flags > 1) return CUDA_ERROR_INVALID_VALUE;
    if (!state().events.count(event)) return CUDA_ERROR_INVALID_HANDLE;
    if (!event->point) return 0;
    Work work;
    work.kind = Work::Wait;
    work.points.push_back(event->point);
    return submit(lock, context, handle, std::move(work));
}

API CUresult cuEventCreate(CUevent *out, unsigned flags) {
    ENTER_CONTEXT();
    if (!out || (flags & ~7u) || ((flags & CU_EVENT_INTERPROCESS) && !(flags & CU_EVENT_DISABLE_TIMING))) return CUDA_ERROR_INVALID_VALUE;
    *out = new Event{context, flags, nullptr};
    state().events.insert(*out);
    return 0;
}

API CUresult cuEventDestroy_v2(CUevent event) {
    ENTER_RELEASE();
    if (!state().events.erase(event)) return sticky ? sticky : CUDA_ERROR_INVALID_HANDLE;
    return sticky;
}

API CUresult cuEventRecord(CUevent event, CUstream handle) {
    ENTER_CONTEXT();
    if (CUresult code = event_of(context, event)) return code;
    Work work;
    work.kind = Work::Record;
    auto point = work.point = std::make_shared<Point>();
    if (CUresult code = submit(lock, context, handle, std::move(work))) return code;
    event->point = point;
    return 0;
}

API CUresult cuEventSynchronize(CUevent event) {
    ENTER_CONTEXT();
    if (CUresult code = event_of(context, event)) return code;
    std::shared_ptr<Point> point = event->point;
    if (point) state().done.wait(lock, [&] { return point->done; });
    return context->error;
}

API CUresult cuEventQuery(CUevent event) {
    ENTER_CONTEXT();
    if (CUresult code = event_of(context, event)) return code;
    return event->point && !event->point->done ? CUDA_ERROR_NOT_READY : 0;
}

static CUresult elapsed(Context *context, float *ms, CUevent start, CUevent end) {
    if (!ms) return CUDA_ERROR_INVALID_VALUE;
    if (CUresult code = event_of(context, start)) return code;
    if (CUresult code = event_of(context, end)) return code;
    if ((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING || !start->point || !end->point) return CUDA_ERROR_INVALID_HANDLE;
    if (!start->point->done || !end->point->done) return CUDA_ERROR_NOT_READY;
    *ms = (float)(end->point->ms - start->point->ms);
    return 0;
}

API CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end) {
    ENTER_CONTEXT();
    return elapsed(context, ms, start, end);
}

API CUresult cuEventElapsedTime_v2(float *ms, CUevent start, CUevent end) {
    needs_version(__func__, 12080);
    ENTER_CONTEXT();
    return elapsed(context, ms, start, end);
}
