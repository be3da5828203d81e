/* Starts many streams at once and prints their latencies.
 *
 *   stream_client PORT REQUEST_FILE STREAMS LIMIT_SECONDS [ROUNDS]
 *
 * REQUEST_FILE holds the complete HTTP request. Each stream has a connection of its own. A stream succeeds if its status
 * is 200, it has events and `[DONE]`, and its HTTP body is complete. The time to the first event counts from connect().
 * A gap is the time between two reads that returned events. Events of one read make no gap of zero, so that batching
 * does not improve the percentiles. Rounds run one after the other. */
#include "http.h"

typedef struct {
    int fd;
    Reply reply;
    size_t sent;
    int64_t started, last_event;
    long events, events_in_read;
    bool is_done, at_line_start, has_ended;
    char line[8];
    size_t line_used;
} Stream;

static int64_t *first_events, *gaps, *largest_gaps, *durations;
static size_t first_count, gap_count, gap_capacity, largest_count, duration_count;
static long events, failures;
static char scratch[READ_SIZE];
static int first_bad_status;

/* Counts events by the first bytes of every line. `data: [` is the end, any other `data:` an event. */
static void on_body(void *owner, const char *bytes, size_t size) {
    Stream *s = owner;
    for (const char *end = bytes + size; bytes < end;) {
        if (s->line_used < 7 && *bytes != '\n') {
            s->line[s->line_used++] = *bytes++;
            if (s->line_used == 7 && !memcmp(s->line, "data: ", 6)) {
                if (s->line[6] == '[') s->is_done = true; else s->events++, s->events_in_read++;
            }
            continue;
        }
        const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
        if (!newline) return;
        bytes = newline + 1, s->line_used = 0;
    }
}

static void record_gap(int64_t gap) {
    if (gap_count == gap_capacity) gaps = realloc(gaps, (gap_capacity = gap_capacity ? 2 * gap_capacity : 1 << 16) * sizeof *gaps);
    gaps[gap_count++] = gap;
}

static void record_arrival(Stream *s, int64_t *largest) {
    if (!s->events_in_read) return;
    int64_t now = now_ns();
    if (s->last_event) {
        int64_t gap = now - s->last_event;
        record_gap(gap);
        if (gap > *largest) *largest = gap;
    } else {
        first_events[first_count++] = now - s->started;
    }
    s->last_event = now, events += s->events_in_read, s->events_in_read = 0;
}

static void finish(Stream *s) {
    bool succeeded = s->reply.status == 200 && s->is_done && s->events > 0 &&
                     (s->reply.part == COMPLETE || s->reply.until_close);
    if (!succeeded) failures++;
    if (!succeeded && !first_bad_status) first_bad_status = s->reply.status ? s->reply.status : -1;
    durations[duration_count++] = now_ns() - s->started;
    s->has_ended = true;
    close(s->fd);
}

static void on_ready(Stream *s, uint32_t what, int epoll_fd, const char *request, size_t size, int64_t *largest) {
    if (what & EPOLLOUT && s->sent < size) {
        ssize_t n = send(s->fd, request + s->sent, size - s->sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) { finish(s); return; }
        s->sent += n > 0 ? (size_t)n : 0;
        if (s->sent == size) {
            struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
            epoll_ctl(epoll_fd, EPOLL_CTL_MOD, s->fd, &e);
        }
    }
    if (!(what & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    ssize_t n = recv(s->fd, scratch, READ_SIZE, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) { finish(s); return; }
    feed(&s->reply, scratch, (size_t)n, on_body, s);
    record_arrival(s, largest);
    if (s->reply.part >= COMPLETE) finish(s);
}

static void run_round(int port, const char *request, size_t size, int count, double limit) {
    int epoll_fd = epoll_create1(0), remaining = count;
    Stream *all = calloc((size_t)count, sizeof *all);
    int64_t *largest = calloc((size_t)count, sizeof *largest), until = now_ns() + (int64_t)(limit * 1e9);
    for (int i = 0; i < count; i++) {
        Stream *s = all + i;
        s->started = now_ns(), s->fd = connect_to(port);
        reset_reply(&s->reply);
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = s};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &e);
    }
    while (remaining && now_ns() < until) {
        struct epoll_event ready[256];
        int n = epoll_wait(epoll_fd, ready, 256, 100);
        for (int i = 0; i < n; i++) {
            Stream *s = ready[i].data.ptr;
            on_ready(s, ready[i].events, epoll_fd, request, size, largest + (s - all));
            remaining -= s->has_ended;
        }
    }
    for (int i = 0; i < count; i++) {
        if (!all[i].has_ended) finish(all + i);
        largest_gaps[largest_count++] = largest[i];
    }
    close(epoll_fd), free(all), free(largest);
}

int main(int count, char **arguments) {
    if (count < 5) { fputs("usage: stream_client PORT REQUEST_FILE STREAMS LIMIT_SECONDS [ROUNDS]\n", stderr); return 2; }
    int streams = atoi(arguments[3]), rounds = count > 5 ? atoi(arguments[5]) : 1;
    size_t size, all = (size_t)streams * (size_t)rounds;
    char *request = read_file(arguments[2], &size);
    first_events = calloc(all, 8), largest_gaps = calloc(all, 8), durations = calloc(all, 8);
    raise_file_limit();
    int64_t started = now_ns();
    for (int i = 0; i < rounds; i++) run_round(atoi(arguments[1]), request, size, streams, atof(arguments[4]));
    printf("{\"streams\": %zu, \"failures\": %ld, \"bad_status\": %d, \"events\": %ld, \"seconds\": %.3f, ", all, failures,
           first_bad_status, events, (double)(now_ns() - started) / 1e9);
    print_percentiles("first_event_ms", first_events, first_count);
    printf(", ");
    print_percentiles("gap_ms", gaps, gap_count);
    printf(", ");
    print_percentiles("largest_gap_ms", largest_gaps, largest_count);
    printf(", ");
    print_percentiles("duration_ms", durations, duration_count);
    puts("}");
}
