/* The upstream of the benchmark: answers every POST as OpenAI's chat completions would, at next to no cost.
 *
 *   stream_upstream PORT
 *
 * A request whose body says "stream": true gets as many events as its "max_tokens" says, one every so many milliseconds
 * as its "seed" says (100 and 50 without them), then usage where it was asked for (include_usage) and [DONE]. These two
 * are fields of OpenAI's that every gateway passes on. Any other request gets one whole completion.
 * GET gives the counts of what was served so far. One thread, epoll, one timerfd that ticks while streams run.
 * A request must have a Content-Length; only the first 64 kB of its body are looked at. */
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
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { LOOKED_AT = 65536, READ_SIZE = 1 << 20, OUT_SIZE = 65536, MAX_FD = 65536, TICK_NS = 1000000 };

#define CHUNK(choice, usage)                                                                                       \
    "data: {\"id\":\"chatcmpl-CYvQ2c4bLrGv8mXnT0sWk3JdZpHe1\",\"object\":\"chat.completion.chunk\","               \
    "\"created\":1767225600,\"model\":\"bench\",\"service_tier\":\"default\","                                       \
    "\"system_fingerprint\":\"fp_560af6e559\",\"choices\":[" choice "],\"usage\":" usage "}\n\n"
#define CHOICE(delta, reason)                                                                                      \
    "{\"index\":0,\"delta\":{" delta "},\"logprobs\":null,\"finish_reason\":" reason "}"
#define USAGE                                                                                                      \
    "{\"prompt_tokens\":212,\"completion_tokens\":100,\"total_tokens\":312,\"prompt_tokens_details\":"               \
    "{\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0,"               \
    "\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}"

static const char FIRST[] = CHUNK(CHOICE("\"role\":\"assistant\",\"content\":\"Once\",\"refusal\":null", "null"), "null");
static const char MIDDLE[] = CHUNK(CHOICE("\"content\":\" upon\"", "null"), "null");
static const char LAST[] = CHUNK(CHOICE("", "\"stop\""), "null");
static const char USAGE_CHUNK[] = CHUNK("", USAGE);
static const char DONE[] = "data: [DONE]\n\n";
static const char STREAM_HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                                  "Transfer-Encoding: chunked\r\nx-request-id: req_bench\r\n\r\n";
static const char COMPLETION[] =
    "{\"id\":\"chatcmpl-CYvQ2c4bLrGv8mXnT0sWk3JdZpHe1\",\"object\":\"chat.completion\",\"created\":1767225600,"
    "\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A proxy takes a "
    "request, hands it on, and gives the answer back as it came. What it adds should be too small to be seen; what it "
    "keeps should be nothing at all. Everything else is the work of the model behind it, and of the people who ask. "
    "That is why a gateway is measured by the time it takes for itself.\",\"refusal\":null,\"annotations\":[]},"
    "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":" USAGE
    ",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_560af6e559\"}";

typedef struct Peer {
    int fd;
    bool is_reading_body, is_streaming, wants_usage, waits_to_write;
    size_t body_left, in_used, head_used; /* what is kept of a request: its head, then the first bytes of its body */
    char in[LOOKED_AT + 1];
    char out[OUT_SIZE];
    size_t out_used, out_sent;
    long events_due, events_made;
    int64_t began, interval;
    struct Peer *next, *previous; /* the list of running streams */
} Peer;

static Peer *peers[MAX_FD], *streams;
static int epoll_fd, timer_fd;
static long requests, events;
static char scratch[READ_SIZE];

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void watch(Peer *p, bool for_writing) {
    if (p->waits_to_write == for_writing) return;
    p->waits_to_write = for_writing;
    struct epoll_event e = {.events = EPOLLIN | (for_writing ? EPOLLOUT : 0u), .data.fd = p->fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, p->fd, &e);
}

static void tick(bool on) {
    struct itimerspec t = {.it_interval.tv_nsec = on ? TICK_NS : 0, .it_value.tv_nsec = on ? TICK_NS : 0};
    timerfd_settime(timer_fd, 0, &t, NULL);
}

static void join_streams(Peer *p) {
    if (!streams) tick(true);
    p->next = streams, p->previous = NULL;
    if (streams) streams->previous = p;
    streams = p, p->is_streaming = true;
}

static void leave_streams(Peer *p) {
    if (!p->is_streaming) return;
    if (p->previous) p->previous->next = p->next; else streams = p->next;
    if (p->next) p->next->previous = p->previous;
    p->is_streaming = false;
    if (!streams) tick(false);
}

static void drop(Peer *p) {
    leave_streams(p);
    peers[p->fd] = NULL;
    close(p->fd);
    free(p);
}

/* False when the peer is gone. */
static bool flush(Peer *p) {
    while (p->out_sent < p->out_used) {
        ssize_t n = send(p->fd, p->out + p->out_sent, p->out_used - p->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) { watch(p, true); return true; }
        if (n <= 0) { drop(p); return false; }
        p->out_sent += (size_t)n;
    }
    p->out_used = p->out_sent = 0;
    watch(p, false);
    return true;
}

static void put(Peer *p, const char *bytes, size_t size) {
    memcpy(p->out + p->out_used, bytes, size);
    p->out_used += size;
}

static void put_chunk(Peer *p, const char *bytes, size_t size) {
    p->out_used += (size_t)sprintf(p->out + p->out_used, "%zx\r\n", size);
    put(p, bytes, size);
    put(p, "\r\n", 2);
}

#define PUT_EVENT(peer, text) put_chunk(peer, text, sizeof text - 1)

/* Sends what is due by now of one stream: several events in one write if the machine was late. */
static void advance(Peer *p, int64_t now) {
    long due = (now - p->began) / p->interval;
    if (due > p->events_due) due = p->events_due;
    if (p->out_used) return; /* the peer is slow; what is due meanwhile follows at once when it has read */
    while (p->events_made < due && p->out_used < OUT_SIZE - 4096) {
        p->events_made++, events++;
        if (p->events_made == p->events_due) PUT_EVENT(p, LAST);
        else if (p->events_made == 1) PUT_EVENT(p, FIRST);
        else PUT_EVENT(p, MIDDLE);
    }
    if (p->events_made == p->events_due) {
        if (p->wants_usage) PUT_EVENT(p, USAGE_CHUNK);
        PUT_EVENT(p, DONE);
        put(p, "0\r\n\r\n", 5);
        leave_streams(p);
    }
    if (p->out_used) flush(p);
}

static bool says_true(const char *body, const char *key) {
    const char *at = strstr(body, key);
    if (!at) return false;
    at += strlen(key);
    while (*at == ' ' || *at == ':') at++;
    return strncmp(at, "true", 4) == 0;
}

/* The number that follows a key; `otherwise` where there is no such key, or no number of at least `least`. */
static long number_of(const char *body, const char *key, long least, long otherwise) {
    const char *at = strstr(body, key);
    if (!at) return otherwise;
    at += strlen(key);
    long number = strtol(at + strspn(at, ": "), NULL, 10);
    return number < least ? otherwise : number;
}

static bool start_stream(Peer *p, const char *body) {
    p->events_due = number_of(body, "\"max_tokens\"", 2, 100);
    p->interval = number_of(body, "\"seed\"", 1, 50) * 1000000;
    p->events_made = 0, p->began = now_ns(), p->wants_usage = says_true(body, "\"include_usage\"");
    put(p, STREAM_HEAD, sizeof STREAM_HEAD - 1);
    join_streams(p);
    return flush(p);
}

static bool answer_whole(Peer *p, const char *type, const char *body, size_t size) {
    p->out_used += (size_t)sprintf(p->out + p->out_used, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                                   "x-request-id: req_bench\r\n\r\n", type, size);
    put(p, body, size);
    return flush(p);
}

/* The request is complete: its head and the beginning of its body are in `in`. False when the peer is gone. */
static bool answer(Peer *p) {
    p->in[p->in_used] = 0;
    bool is_get = strncmp(p->in, "GET ", 4) == 0;
    const char *body = p->in + p->head_used;
    p->in_used = 0, p->is_reading_body = false;
    if (is_get) {
        char counts[128];
        int size = sprintf(counts, "{\"requests\":%ld,\"events\":%ld}", requests, events);
        return answer_whole(p, "application/json", counts, (size_t)size);
    }
    requests++;
    if (says_true(body, "\"stream\"")) return start_stream(p, body);
    return answer_whole(p, "application/json", COMPLETION, sizeof COMPLETION - 1);
}

/* One request at a time: clients of this upstream do not pipeline. False when the peer is gone. */
static bool take(Peer *p, const char *bytes, size_t size) {
    size_t kept = size < LOOKED_AT - p->in_used ? size : LOOKED_AT - p->in_used;
    memcpy(p->in + p->in_used, bytes, kept);
    p->in_used += kept;
    if (p->is_reading_body) {
        p->body_left -= size < p->body_left ? size : p->body_left;
        return p->body_left ? true : answer(p);
    }
    char *end = memmem(p->in, p->in_used, "\r\n\r\n", 4);
    if (!end) return true;
    *end = 0;
    const char *length = strcasestr(p->in, "\r\ncontent-length:");
    size_t body = length ? strtoul(length + 17, NULL, 10) : 0;
    *end = '\r';
    p->head_used = (size_t)(end + 4 - p->in);
    size_t here = p->in_used - p->head_used + (size - kept);
    if (here >= body) return answer(p);
    p->body_left = body - here, p->is_reading_body = true;
    return true;
}

static void on_readable(Peer *p) {
    for (;;) {
        ssize_t n = recv(p->fd, scratch, READ_SIZE, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) { drop(p); return; }
        if (!take(p, scratch, (size_t)n)) return;
        if (n < READ_SIZE) return;
    }
}

static void on_connection(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        peers[fd] = calloc(1, sizeof(Peer));
        peers[fd]->fd = fd;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

static void on_tick(void) {
    uint64_t ticks;
    if (read(timer_fd, &ticks, sizeof ticks) < 0) return;
    int64_t now = now_ns();
    for (Peer *p = streams, *next; p; p = next) next = p->next, advance(p, now);
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096)) { perror("listen"); exit(1); }
    return fd;
}

int main(int count, char **arguments) {
    if (count != 2) { fputs("usage: stream_upstream PORT\n", stderr); return 2; }
    struct rlimit files = {MAX_FD, MAX_FD};
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = listen_on(atoi(arguments[1]));
    epoll_fd = epoll_create1(0), timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    e.data.fd = timer_fd;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &e);
    for (;;) {
        struct epoll_event ready[512];
        int n = epoll_wait(epoll_fd, ready, 512, -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) { on_connection(fd); continue; }
            if (fd == timer_fd) { on_tick(); continue; }
            Peer *p = peers[fd];
            if (p && ready[i].events & EPOLLOUT && !flush(p)) continue;
            p = peers[fd];
            if (p && ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(p);
        }
    }
}
