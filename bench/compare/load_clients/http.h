/* Shared code of the load clients: time, connections, and an HTTP/1.1 response parser that stores no body. */
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

enum { MAX_HEADERS = 16384, READ_SIZE = 1 << 18 };

typedef enum { IN_HEADERS, IN_BODY, IN_CHUNK_SIZE, IN_CHUNK, AFTER_CHUNK, IN_TRAILER, COMPLETE, BROKEN } Part;

typedef struct {
    Part part;
    int status;
    bool is_chunked, until_close;
    size_t remaining, header_size;
    char headers[MAX_HEADERS];
} Reply;

typedef void OnBody(void *owner, const char *bytes, size_t size);

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void reset_reply(Reply *r) { r->part = IN_HEADERS, r->status = 0, r->header_size = 0, r->remaining = 0; }

static inline void finish_headers(Reply *r) {
    if (sscanf(r->headers, "HTTP/1.%*c %d", &r->status) != 1) { r->part = BROKEN; return; }
    r->is_chunked = strcasestr(r->headers, "\r\ntransfer-encoding: chunked") != NULL;
    const char *length = strcasestr(r->headers, "\r\ncontent-length:");
    r->until_close = !r->is_chunked && !length;
    r->remaining = r->is_chunked ? 0 : length ? strtoul(length + 17, NULL, 10) : SIZE_MAX;
    r->part = r->is_chunked ? IN_CHUNK_SIZE : r->remaining ? IN_BODY : COMPLETE;
    if (r->status == 100) reset_reply(r);
}

/* Parses received bytes and passes those of the body to `on_body`. */
static inline void feed(Reply *r, const char *bytes, size_t size, OnBody *on_body, void *owner) {
    for (size_t i = 0; i < size;) {
        size_t available = size - i;
        if (r->part == IN_HEADERS) {
            if (r->header_size == MAX_HEADERS - 1) { r->part = BROKEN; return; }
            r->headers[r->header_size++] = bytes[i++];
            r->headers[r->header_size] = 0;
            if (r->header_size >= 4 && !memcmp(r->headers + r->header_size - 4, "\r\n\r\n", 4)) finish_headers(r);
        } else if (r->part == IN_BODY || r->part == IN_CHUNK) {
            size_t n = available < r->remaining ? available : r->remaining;
            if (on_body) on_body(owner, bytes + i, n);
            i += n, r->remaining -= n;
            if (!r->remaining) r->part = r->part == IN_BODY ? COMPLETE : AFTER_CHUNK;
        } else if (r->part == IN_CHUNK_SIZE) {
            char c = bytes[i++];
            if (c == '\n') r->part = r->remaining ? IN_CHUNK : IN_TRAILER;
            else if (c >= '0' && c <= '9') r->remaining = r->remaining * 16 + (size_t)(c - '0');
            else if ((c | 32) >= 'a' && (c | 32) <= 'f') r->remaining = r->remaining * 16 + (size_t)((c | 32) - 'a' + 10);
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

static inline void raise_file_limit(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static inline int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Sorts `values` and prints `"name": {"p50": ..., ...}` in milliseconds. */
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
