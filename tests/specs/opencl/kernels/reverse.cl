// Elements the other way round, and a number behind them.
kernel void reverse(global const T *x, global T *y, T s, uint n) {
    size_t i = get_global_id(0);
    y[i] = x[n - 1 - i];
    if (i == 0)
        y[n] = s;
}
