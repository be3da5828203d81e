/* Sends requests at a fixed rate, whether or not earlier ones were answered, and prints their latencies.
 *
 *   open_loop PORT REQUEST_FILE RATE SECONDS LIMIT_SECONDS
 *
 * Latency counts from the moment at which a request was due, so that a stalled server is charged for every waiting
 * request (no coordinated omission). Idle connections are reused, and a new one is opened when there is none. */
#include "http.h"

#include <sys/timerfd.h>

enum { MAX_CONNECTIONS = 4096 };

typedef struct {
    int fd;
    bool is_busy;
    size_t sent;
    int64_t due;
    Reply reply;
} Connection;

static Connection connections[MAX_CONNECTIONS];
static int connection_count, idle[MAX_CONNECTIONS], idle_count, epoll_fd, port;
static int64_t *latencies;
static size_t answered;
static long failures, in_flight, first_bad_status;
static const char *request;
static size_t request_size;
static char scratch[READ_SIZE];

static void watch(Connection *c, int operation, uint32_t what) {
    struct epoll_event e = {.events = what, .data.ptr = c};
    epoll_ctl(epoll_fd, operation, c->fd, &e);
}

static void open_connection(Connection *c) {
    c->fd = connect_to(port);
    watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static void finish(Connection *c, bool is_answered) {
    bool succeeded = is_answered && c->reply.status == 200;
    if (succeeded) latencies[answered++] = now_ns() - c->due;
    else if (!failures++) first_bad_status = c->reply.status;
    c->is_busy = false, in_flight--;
    if (!is_answered || strcasestr(c->reply.headers, "\r\nconnection: close")) {
        close(c->fd);
        c->fd = -1;
    }
    idle[idle_count++] = (int)(c - connections);
}

static void write_request(Connection *c) {
    while (c->sent < request_size) {
        ssize_t n = send(c->fd, request + c->sent, request_size - c->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == ENOTCONN)) { watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT); return; }
        if (n < 0) { finish(c, false); return; }
        c->sent += (size_t)n;
    }
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void start(int64_t due) {
    if (!idle_count && connection_count == MAX_CONNECTIONS) { failures++; return; }
    Connection *c = connections + (idle_count ? idle[--idle_count] : connection_count++);
    bool is_new = c->fd <= 0;
    reset_reply(&c->reply);
    c->is_busy = true, c->sent = 0, c->due = due, in_flight++;
    if (is_new) open_connection(c); else write_request(c);
}

static void on_ready(Connection *c, uint32_t what) {
    if (what & EPOLLOUT && c->is_busy && c->sent < request_size) write_request(c);
    if (!(what & (EPOLLIN | EPOLLHUP | EPOLLERR)) || c->fd < 0) return;
    ssize_t n = recv(c->fd, scratch, READ_SIZE, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        if (c->is_busy) { finish(c, false); return; }
        close(c->fd);
        c->fd = -1;
        return;
    }
    if (!c->is_busy) return;
    feed(&c->reply, scratch, (size_t)n, NULL, NULL);
    if (c->reply.part == COMPLETE || c->reply.part == BROKEN) finish(c, c->reply.part == COMPLETE);
}

int main(int count, char **arguments) {
    if (count != 6) { fputs("usage: open_loop PORT REQUEST_FILE RATE SECONDS LIMIT_SECONDS\n", stderr); return 2; }
    port = atoi(arguments[1]);
    request = read_file(arguments[2], &request_size);
    double rate = atof(arguments[3]), seconds = atof(arguments[4]);
    long total = (long)(rate * seconds), started = 0;
    latencies = calloc((size_t)total, sizeof *latencies);
    raise_file_limit();
    epoll_fd = epoll_create1(0);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &e);
    int64_t started_at = now_ns(), until = started_at + (int64_t)((seconds + atof(arguments[5])) * 1e9);
    while ((started < total || in_flight) && now_ns() < until) {
        for (int64_t due; started < total && (due = started_at + (int64_t)((double)started * 1e9 / rate)) <= now_ns(); started++)
            start(due);
        if (started < total) {
            int64_t next = started_at + (int64_t)((double)started * 1e9 / rate);
            struct itimerspec t = {.it_value = {.tv_sec = next / 1000000000, .tv_nsec = next % 1000000000}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &t, NULL);
        }
        struct epoll_event ready[256];
        int n = epoll_wait(epoll_fd, ready, 256, 100);
        for (int i = 0; i < n; i++) {
            uint64_t ticks;
            if (ready[i].data.ptr) on_ready(ready[i].data.ptr, ready[i].events);
            else if (read(timer, &ticks, sizeof ticks) < 0) continue;
        }
    }
    printf("{\"requests\": %ld, \"answered\": %zu, \"failures\": %ld, \"unanswered\": %ld, \"bad_status\": %ld, "
           "\"connections\": %d, \"seconds\": %.3f, ", total, answered, failures, in_flight + total - started,
           first_bad_status, connection_count, (double)(now_ns() - started_at) / 1e9);
    print_percentiles("latency_ms", latencies, answered);
    puts("}");
}
