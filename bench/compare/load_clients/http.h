/* What the load clients share: time, connections, and a reader of HTTP/1.1 replies that keeps nothing. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_SIZE = 16384, READ_SIZE = 1 << 18 };

typedef enum { IN_HEAD, IN_BODY, IN_CHUNK_SIZE, IN_CHUNK, AFTER_CHUNK, IN_TRAILER, COMPLETE, BROKEN } Part;

typedef struct {
    Part part;
    int status;
    bool is_chunked, until_close;
    size_t left, head_used;
    char head[HEAD_SIZE];
} Reply;

typedef void OnBody(void *owner, const char *bytes, size_t size);

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void begin_reply(Reply *r) { r->part = IN_HEAD, r->status = 0, r->head_used = 0, r->left = 0; }

static inline void finish_head(Reply *r) {
    if (sscanf(r->head, "HTTP/1.%*c %d", &r->status) != 1) { r->part = BROKEN; return; }
    r->is_chunked = strcasestr(r->head, "\r\ntransfer-encoding: chunked") != NULL;
    const char *length = strcasestr(r->head, "\r\ncontent-length:");
    r->until_close = !r->is_chunked && !length;
    r->left = r->is_chunked ? 0 : length ? strtoul(length + 17, NULL, 10) : SIZE_MAX;
    r->part = r->is_chunked ? IN_CHUNK_SIZE : r->left ? IN_BODY : COMPLETE;
    if (r->status == 100) begin_reply(r);
}

/* Feeds bytes from the wire; `on_body` gets those of the body. */
static inline void feed(Reply *r, const char *bytes, size_t size, OnBody *on_body, void *owner) {
    for (size_t i = 0; i < size;) {
        size_t rest = size - i;
        if (r->part == IN_HEAD) {
            if (r->head_used == HEAD_SIZE - 1) { r->part = BROKEN; return; }
            r->head[r->head_used++] = bytes[i++];
            r->head[r->head_used] = 0;
            if (r->head_used >= 4 && !memcmp(r->head + r->head_used - 4, "\r\n\r\n", 4)) finish_head(r);
        } else if (r->part == IN_BODY || r->part == IN_CHUNK) {
            size_t n = rest < r->left ? rest : r->left;
            if (on_body) on_body(owner, bytes + i, n);
            i += n, r->left -= n;
            if (!r->left) r->part = r->part == IN_BODY ? COMPLETE : AFTER_CHUNK;
        } else if (r->part == IN_CHUNK_SIZE) {
            char c = bytes[i++];
            if (c == '\n') r->part = r->left ? IN_CHUNK : IN_TRAILER;
            else if (c >= '0' && c <= '9') r->left = r->left * 16 + (size_t)(c - '0');
            else if ((c | 32) >= 'a' && (c | 32) <= 'f') r->left = r->left * 16 + (size_t)((c | 32) - 'a' + 10);
            else if (c != '\r') { r->part = BROKEN; return; }
        } else if (r->part == AFTER_CHUNK) {
            if (bytes[i++] == '\n') r->part = IN_CHUNK_SIZE;
        } else if (r->part == IN_TRAILER) {
            if (bytes[i++] == '\n') r->part = COMPLETE;
        } else return;
    }
}

static inline int connect_to(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&a, sizeof a) && errno != EINPROGRESS) { perror("connect"); exit(1); }
    return fd;
}

static inline char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) { perror(path); exit(1); }
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*size + 1);
    if (fread(bytes, 1, *size, file) != *size) { perror(path); exit(1); }
    fclose(file);
    return bytes;
}

static inline void allow_many_files(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static inline int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Prints `"name": {"p50": ..., ...}` in milliseconds; sorts `values`. */
static inline void print_percentiles(const char *name, int64_t *values, size_t count) {
    qsort(values, count, sizeof *values, by_value);
    double shares[] = {0.5, 0.9, 0.99, 1};
    const char *names[] = {"p50", "p90", "p99", "max"};
    printf("\"%s\": {", name);
    for (int i = 0; i < 4; i++) {
        size_t at = (size_t)((double)count * shares[i]);
        if (at >= count) at = count ? count - 1 : 0;
        printf("%s\"%s\": %.3f", i ? ", " : "", names[i], count ? (double)values[at] / 1e6 : 0.0);
    }
    printf("}");
}
