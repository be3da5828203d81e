/* Upstream of the benchmarks. It answers every POST as OpenAI's chat completions would, at minimal cost.
 *
 *   stream_upstream PORT
 *
 * A request with "stream": true receives "max_tokens" events (default 100), one every "seed" milliseconds (default 50),
 * then usage if it has "include_usage": true, and [DONE]. Every gateway forwards these two fields. Any other request
 * receives one complete JSON response. GET returns the counts of requests and events. One thread, epoll, and one
 * timerfd that ticks while streams run. Requests need a Content-Length. Only the first 64 kB are inspected. */
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

enum { INSPECTED = 65536, READ_SIZE = 1 << 20, OUT_SIZE = 65536, MAX_FD = 65536, TICK_NS = 1000000 };

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
static const char STREAM_HEADERS[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                                  "Transfer-Encoding: chunked\r\nx-request-id: req_bench\r\n\r\n";
static const char COMPLETION[] =
    "{\"id\":\"chatcmpl-CYvQ2c4bLrGv8mXnT0sWk3JdZpHe1\",\"object\":\"chat.completion\",\"created\":1767225600,"
    "\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A proxy takes a "
    "request, hands it on, and gives the answer back as it came. What it adds should be too small to be seen; what it "
    "keeps should be nothing at all. Everything else is the work of the model behind it, and of the people who ask. "
    "That is why a gateway is measured by the time it takes for itself.\",\"refusal\":null,\"annotations\":[]},"
    "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":" USAGE
    ",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_560af6e559\"}";

typedef struct Client {
    int fd;
    bool is_reading_body, is_streaming, wants_usage, waits_to_write;
    size_t body_remaining, in_size, header_size; /* `in` holds the header block, then the first bytes of the body */
    char in[INSPECTED + 1];
    char out[OUT_SIZE];
    size_t out_size, out_sent;
    long events_due, events_made;
    int64_t started, interval;
    struct Client *next, *previous; /* list of running streams */
} Client;

static Client *clients[MAX_FD], *streams;
static int epoll_fd, timer_fd;
static long requests, events;
static char scratch[READ_SIZE];

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void watch(Client *c, bool for_writing) {
    if (c->waits_to_write == for_writing) return;
    c->waits_to_write = for_writing;
    struct epoll_event e = {.events = EPOLLIN | (for_writing ? EPOLLOUT : 0u), .data.fd = c->fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static void set_timer(bool on) {
    struct itimerspec t = {.it_interval.tv_nsec = on ? TICK_NS : 0, .it_value.tv_nsec = on ? TICK_NS : 0};
    timerfd_settime(timer_fd, 0, &t, NULL);
}

static void add_stream(Client *c) {
    if (!streams) set_timer(true);
    c->next = streams, c->previous = NULL;
    if (streams) streams->previous = c;
    streams = c, c->is_streaming = true;
}

static void remove_stream(Client *c) {
    if (!c->is_streaming) return;
    if (c->previous) c->previous->next = c->next; else streams = c->next;
    if (c->next) c->next->previous = c->previous;
    c->is_streaming = false;
    if (!streams) set_timer(false);
}

static void close_client(Client *c) {
    remove_stream(c);
    clients[c->fd] = NULL;
    close(c->fd);
    free(c);
}

/* Returns false when the client has disconnected. */
static bool flush(Client *c) {
    while (c->out_sent < c->out_size) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_size - c->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) { watch(c, true); return true; }
        if (n <= 0) { close_client(c); return false; }
        c->out_sent += (size_t)n;
    }
    c->out_size = c->out_sent = 0;
    watch(c, false);
    return true;
}

static void put(Client *c, const char *bytes, size_t size) {
    memcpy(c->out + c->out_size, bytes, size);
    c->out_size += size;
}

static void put_chunk(Client *c, const char *bytes, size_t size) {
    c->out_size += (size_t)sprintf(c->out + c->out_size, "%zx\r\n", size);
    put(c, bytes, size);
    put(c, "\r\n", 2);
}

#define PUT_EVENT(client, text) put_chunk(client, text, sizeof text - 1)

/* Sends the events of one stream that are due, several in one write if the process was delayed. */
static void advance(Client *c, int64_t now) {
    long due = (now - c->started) / c->interval;
    if (due > c->events_due) due = c->events_due;
    if (c->out_size) return; /* the client is slow, the events are sent once it has read */
    while (c->events_made < due && c->out_size < OUT_SIZE - 4096) {
        c->events_made++, events++;
        if (c->events_made == c->events_due) PUT_EVENT(c, LAST);
        else if (c->events_made == 1) PUT_EVENT(c, FIRST);
        else PUT_EVENT(c, MIDDLE);
    }
    if (c->events_made == c->events_due) {
        if (c->wants_usage) PUT_EVENT(c, USAGE_CHUNK);
        PUT_EVENT(c, DONE);
        put(c, "0\r\n\r\n", 5);
        remove_stream(c);
    }
    if (c->out_size) flush(c);
}

static bool is_true(const char *body, const char *key) {
    const char *at = strstr(body, key);
    if (!at) return false;
    at += strlen(key);
    while (*at == ' ' || *at == ':') at++;
    return strncmp(at, "true", 4) == 0;
}

/* Returns the number after a key, or `fallback` if there is no such key or the number is below `minimum`. */
static long number_of(const char *body, const char *key, long minimum, long fallback) {
    const char *at = strstr(body, key);
    if (!at) return fallback;
    at += strlen(key);
    long number = strtol(at + strspn(at, ": "), NULL, 10);
    return number < minimum ? fallback : number;
}

static bool start_stream(Client *c, const char *body) {
    c->events_due = number_of(body, "\"max_tokens\"", 2, 100);
    c->interval = number_of(body, "\"seed\"", 1, 50) * 1000000;
    c->events_made = 0, c->started = now_ns(), c->wants_usage = is_true(body, "\"include_usage\"");
    put(c, STREAM_HEADERS, sizeof STREAM_HEADERS - 1);
    add_stream(c);
    return flush(c);
}

static bool send_response(Client *c, const char *type, const char *body, size_t size) {
    c->out_size += (size_t)sprintf(c->out + c->out_size, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                                   "x-request-id: req_bench\r\n\r\n", type, size);
    put(c, body, size);
    return flush(c);
}

/* Answers a complete request, whose header block and start of the body are in `in`. Returns false when the client has
 * disconnected. */
static bool answer(Client *c) {
    c->in[c->in_size] = 0;
    bool is_get = strncmp(c->in, "GET ", 4) == 0;
    const char *body = c->in + c->header_size;
    c->in_size = 0, c->is_reading_body = false;
    if (is_get) {
        char counts[128];
        int size = sprintf(counts, "{\"requests\":%ld,\"events\":%ld}", requests, events);
        return send_response(c, "application/json", counts, (size_t)size);
    }
    requests++;
    if (is_true(body, "\"stream\"")) return start_stream(c, body);
    return send_response(c, "application/json", COMPLETION, sizeof COMPLETION - 1);
}

/* Reads one request. Pipelining is not supported. Returns false when the client has disconnected. */
static bool receive(Client *c, const char *bytes, size_t size) {
    size_t copied = size < INSPECTED - c->in_size ? size : INSPECTED - c->in_size;
    memcpy(c->in + c->in_size, bytes, copied);
    c->in_size += copied;
    if (c->is_reading_body) {
        c->body_remaining -= size < c->body_remaining ? size : c->body_remaining;
        return c->body_remaining ? true : answer(c);
    }
    char *end = memmem(c->in, c->in_size, "\r\n\r\n", 4);
    if (!end) return true;
    *end = 0;
    const char *length = strcasestr(c->in, "\r\ncontent-length:");
    size_t body = length ? strtoul(length + 17, NULL, 10) : 0;
    *end = '\r';
    c->header_size = (size_t)(end + 4 - c->in);
    size_t received = c->in_size - c->header_size + (size - copied);
    if (received >= body) return answer(c);
    c->body_remaining = body - received, c->is_reading_body = true;
    return true;
}

static void on_readable(Client *c) {
    for (;;) {
        ssize_t n = recv(c->fd, scratch, READ_SIZE, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) { close_client(c); return; }
        if (!receive(c, scratch, (size_t)n)) return;
        if (n < READ_SIZE) return;
    }
}

static void on_connection(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        clients[fd] = calloc(1, sizeof(Client));
        clients[fd]->fd = fd;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

static void on_tick(void) {
    uint64_t ticks;
    if (read(timer_fd, &ticks, sizeof ticks) < 0) return;
    int64_t now = now_ns();
    for (Client *c = streams, *next; c; c = next) next = c->next, advance(c, now);
}

static int open_listener(int port) {
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
    int listener = open_listener(atoi(arguments[1]));
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
            Client *c = clients[fd];
            if (c && ready[i].events & EPOLLOUT && !flush(c)) continue;
            c = clients[fd];
            if (c && ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
        }
    }
}
