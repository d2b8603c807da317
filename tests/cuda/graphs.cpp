// Graphs of explicit nodes. An executable graph does its nodes in an order that is drawn anew at every launch, from all
// that the edges allow: what an edge misses is seen.
#include "sim.h"
#include <algorithm>

static CUresult add(CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count, Work work) {
    if (!out || !state().graphs.count(graph) || (count && !after)) return CUDA_ERROR_INVALID_VALUE;
    std::vector<size_t> edges;
    for (size_t i = 0; i < count; ++i) {
        if (!state().nodes.count(after[i]) || after[i]->graph != graph) return CUDA_ERROR_INVALID_VALUE;
        if (std::find(edges.begin(), edges.end(), after[i]->index) != edges.end()) return CUDA_ERROR_INVALID_VALUE;
        edges.push_back(after[i]->index);
    }
    size_t index = graph->nodes.size();
    graph->nodes.push_back({graph, std::move(work), std::move(edges), index, true});
    *out = &graph->nodes.back();
    state().nodes.insert(*out);
    return 0;
}

// The kernel, copy or fill of a node, as its params have it.
static CUresult kernel_work(const char *call, Context *context, const CUDA_KERNEL_NODE_PARAMS *params, Work &work) {
    if (!params || params->kern || (params->ctx && params->ctx != context)) return CUDA_ERROR_INVALID_VALUE;
    work.kind = Work::Kernel;
    return make_launch(call, context, *params, work.launch);
}

static CUresult copy_work(const char *call, Context *context, const CUDA_MEMCPY3D *params, CUcontext of, Work &work) {
    if (!params) return CUDA_ERROR_INVALID_VALUE;
    if (of != context) return CUDA_ERROR_INVALID_CONTEXT;
    work.kind = Work::Copy;
    work.copy = *params;
    return check_copy(call, work.copy);
}

static CUresult fill_work(Context *context, const CUDA_MEMSET_NODE_PARAMS *params, CUcontext of, Work &work) {
    if (!params) return CUDA_ERROR_INVALID_VALUE;
    if (of != context) return CUDA_ERROR_INVALID_CONTEXT;
    work.kind = Work::Fill;
    work.fill = *params;
    return check_fill(work.fill);
}

API CUresult cuGraphCreate(CUgraph *out, unsigned flags) {
    ENTER_CONTEXT();
    if (!out || flags) return CUDA_ERROR_INVALID_VALUE;
    *out = new Graph{context, {}};
    state().graphs.insert(*out);
    return 0;
}

API CUresult cuGraphDestroy(CUgraph graph) {
    ENTER();
    Lock lock(state().lock);
    if (!state().graphs.erase(graph)) return CUDA_ERROR_INVALID_VALUE;
    for (Node &node : graph->nodes) state().nodes.erase(&node);
    return 0;
}

API CUresult cuGraphAddKernelNode_v2(CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count, const CUDA_KERNEL_NODE_PARAMS *params) {
    ENTER_CONTEXT();
    Work work;
    if (CUresult code = kernel_work(__func__, context, params, work)) return code;
    return add(out, graph, after, count, std::move(work));
}

API CUresult cuGraphAddMemcpyNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count, const CUDA_MEMCPY3D *params, CUcontext of) {
    ENTER_CONTEXT();
    Work work;
    if (CUresult code = copy_work(__func__, context, params, of, work)) return code;
    return add(out, graph, after, count, std::move(work));
}

API CUresult cuGraphAddMemsetNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count, const CUDA_MEMSET_NODE_PARAMS *params, CUcontext of) {
    ENTER_CONTEXT();
    Work work;
    if (CUresult code = fill_work(context, params, of, work)) return code;
    return add(out, graph, after, count, std::move(work));
}

API CUresult cuGraphAddEmptyNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count) {
    ENTER_CONTEXT();
    return add(out, graph, after, count, Work{});
}

API CUresult cuGraphAddEventRecordNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count, CUevent event) {
    ENTER_CONTEXT();
    if (!state().events.count(event)) return CUDA_ERROR_INVALID_VALUE;
    Work work;
    work.kind = Work::Record;
    work.event = event;
    return add(out, graph, after, count, std::move(work));
}

API CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *params) {
    ENTER_CONTEXT();
    Work work;
    if (!state().nodes.count(node) || node->work.kind != Work::Kernel) return CUDA_ERROR_INVALID_VALUE;
    if (CUresult code = kernel_work(__func__, context, params, work)) return code;
    node->work = std::move(work);
    return 0;
}

API CUresult cuGraphMemsetNodeSetParams(CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS *params) {
    ENTER_CONTEXT();
    Work work;
    if (!state().nodes.count(node) || node->work.kind != Work::Fill) return CUDA_ERROR_INVALID_VALUE;
    if (CUresult code = fill_work(context, params, context, work)) return code;
    node->work = std::move(work);
    return 0;
}

API CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph, unsigned long long flags) {
    ENTER_CONTEXT();
    if (!out || !state().graphs.count(graph) || (flags & ~11ull)) return CUDA_ERROR_INVALID_VALUE;
    auto exec = new Exec{context, graph, std::make_shared<std::vector<Node>>(graph->nodes.begin(), graph->nodes.end()), nullptr, nullptr};
    state().execs.insert(exec);
    *out = exec;
    return 0;
}

API CUresult cuGraphExecDestroy(CUgraphExec exec) {
    ENTER_RELEASE();
    if (!state().execs.count(exec)) return sticky ? sticky : CUDA_ERROR_INVALID_VALUE;
    if (!sticky && exec->last && !exec->last->done) {
        note("misuse: cuGraphExecDestroy: the graph is in flight");
        return CUDA_ERROR_INVALID_VALUE;
    }
    state().execs.erase(exec);
    return sticky;
}

// The node of an executable graph, made from that of the graph; what is in flight keeps the nodes that it has.
static Node *node_in(CUgraphExec exec, CUgraphNode node) {
    // Nodes of a destroyed graph are no handles any more, and those that came later are not in it.
    if (!state().execs.count(exec) || !state().nodes.count(node)) return nullptr;
    if (node->graph != exec->graph || node->index >= exec->nodes->size()) return nullptr;
    if (exec->nodes.use_count() > 1) exec->nodes = std::make_shared<std::vector<Node>>(*exec->nodes);
    return &(*exec->nodes)[node->index];
}

API CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode handle, const CUDA_KERNEL_NODE_PARAMS *params) {
    ENTER_CONTEXT();
    Node *node = node_in(exec, handle);
    Work work;
    if (!node || node->work.kind != Work::Kernel) return CUDA_ERROR_INVALID_VALUE;
    if (CUresult code = kernel_work(__func__, context, params, work)) return code;
    node->work = std::move(work);
    return 0;
}

API CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode handle, const CUDA_MEMSET_NODE_PARAMS *params, CUcontext of) {
    ENTER_CONTEXT();
    Node *node = node_in(exec, handle);
    Work work;
    if (!node || node->work.kind != Work::Fill) return CUDA_ERROR_INVALID_VALUE;
    if (CUresult code = fill_work(context, params, of, work)) return code;
    // Neither the node's memory nor the new one may have a second dimension.
    if (node->work.fill.height != 1 || work.fill.height != 1) return CUDA_ERROR_INVALID_VALUE;
    node->work = std::move(work);
    return 0;
}

API CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode handle, const CUDA_MEMCPY3D *params, CUcontext of) {
    ENTER_CONTEXT();
    Node *node = node_in(exec, handle);
    Work work;
    if (!node || node->work.kind != Work::Copy) return CUDA_ERROR_INVALID_VALUE;
    if (CUresult code = copy_work(__func__, context, params, of, work)) return code;
    const CUDA_MEMCPY3D &a = node->work.copy, &b = work.copy;
    // Kinds of memory stay, and there is one dimension only.
    if (a.srcMemoryType != b.srcMemoryType || a.dstMemoryType != b.dstMemoryType) return CUDA_ERROR_INVALID_VALUE;
    if (a.Height != 1 || a.Depth != 1 || b.Height != 1 || b.Depth != 1) return CUDA_ERROR_INVALID_VALUE;
    node->work = std::move(work);
    return 0;
}

API CUresult cuGraphNodeSetEnabled(CUgraphExec exec, CUgraphNode handle, unsigned enabled) {
    ENTER_CONTEXT();
    Node *node = node_in(exec, handle);
    if (!node) return CUDA_ERROR_INVALID_VALUE;
    Work::Kind kind = node->work.kind;
    if (kind != Work::Kernel && kind != Work::Copy && kind != Work::Fill) return CUDA_ERROR_INVALID_VALUE;
    node->enabled = enabled != 0;
    return 0;
}

API CUresult cuGraphUpload(CUgraphExec exec, CUstream handle) {
    ENTER_CONTEXT();
    if (!state().execs.count(exec)) return CUDA_ERROR_INVALID_VALUE;
    return submit(lock, context, handle, Work{});
}

API CUresult cuGraphLaunch(CUgraphExec exec, CUstream handle) {
    ENTER_CONTEXT();
    if (!state().execs.count(exec)) return CUDA_ERROR_INVALID_VALUE;
    if (exec->context != context) return CUDA_ERROR_INVALID_CONTEXT;
    Stream *stream = nullptr;
    if (CUresult code = stream_of(context, handle, stream)) return code;
    Work work;
    work.kind = Work::Graph;
    work.exec = exec;
    work.nodes = exec->nodes;
    work.order = state().random();
    for (const Node &node : *work.nodes) {
        if (node.work.kind == Work::Kernel && !state().functions.count(node.work.launch.function)) misuse(__func__, "the module of a kernel is unloaded");
        if (node.work.kind != Work::Record) continue;
        if (!state().events.count(node.work.event)) return CUDA_ERROR_INVALID_HANDLE;
        work.points.push_back(std::make_shared<Point>());
        node.work.event->point = work.points.back();
    }
    return submit(lock, context, handle, std::move(work));
}

CUresult perform_graph(Context *context, Work &work) {
    const std::vector<Node> &nodes = *work.nodes;
    std::vector<size_t> missing(nodes.size()), ready, recorded(nodes.size());
    std::vector<std::vector<size_t>> before(nodes.size());
    size_t records = 0;
    for (size_t i = 0; i < nodes.size(); ++i) {
        missing[i] = nodes[i].after.size();
        for (size_t earlier : nodes[i].after) before[earlier].push_back(i);
        if (!missing[i]) ready.push_back(i);
        if (nodes[i].work.kind == Work::Record) recorded[i] = records++;
    }
    std::mt19937_64 random(work.order);
    while (!ready.empty()) {
        std::swap(ready[random() % ready.size()], ready.back());
        size_t at = ready.back();
        ready.pop_back();
        Work one = nodes[at].work;
        if (one.kind == Work::Record) {
            Lock lock(state().lock);
            Point &point = *work.points[recorded[at]];
            point.ms = now_ms();
            point.done = true;
            state().done.notify_all();
        } else if (nodes[at].enabled) {
            if (CUresult code = perform(context, one)) return code;
        }
        for (size_t later : before[at]) {
            if (--missing[later] == 0) ready.push_back(later);
        }
    }
    return 0;
}
