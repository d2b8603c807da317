#define FAR 0.5f
