// wan: one link between two network namespaces, with what a real line does to packets.
//
// usage: wan STATE NET_A TAP_A NET_B TAP_B
//
// NET_x is the path of a network namespace; in each a TAP device is made, which lives as long as this process does.
// STATE is a file of eight little-endian 64-bit numbers, mapped here and written by whoever steers the link: what is
// written holds for the next packet. The last three are written here: bytes delivered to B, to A, packets lost.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct state {
    uint64_t cut, delay_us, jitter_us, loss_ppm, rate_bits, bytes[2], lost;
};

struct packet {
    struct packet *next;
    double due;
    int size;
    char data[];
};

struct direction {
    struct packet *first, *last;
    double busy;  // until when the line sends what it has already
};

static const double QUEUE_S = 0.5;  // a packet that would wait longer for the line is lost
static volatile struct state *line;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int tap(const char *net, const char *name) {
    int ours = open("/proc/self/ns/net", O_RDONLY), theirs = open(net, O_RDONLY);
    if (ours < 0 || theirs < 0 || setns(theirs, CLONE_NEWNET)) fail(net);
    int file = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (file < 0) fail("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(file, TUNSETIFF, &request)) fail(name);
    if (setns(ours, CLONE_NEWNET)) fail("setns");
    close(theirs);
    close(ours);
    return file;
}

static void take(struct direction *to, const char *data, int size) {
    double at = now(), sent = at;
    if (line->cut || drand48() * 1e6 < line->loss_ppm) {
        line->lost++;
        return;
    }
    if (line->rate_bits) {
        if (to->busy > at) sent = to->busy;
        if (sent - at > QUEUE_S) {
            line->lost++;
            return;
        }
        to->busy = sent += size * 8.0 / line->rate_bits;
    }
    struct packet *packet = malloc(sizeof *packet + size);
    if (!packet) fail("malloc");
    packet->next = NULL;
    packet->size = size;
    memcpy(packet->data, data, size);
    packet->due = sent + (line->delay_us + line->jitter_us * (2 * drand48() - 1)) / 1e6;
    if (to->last && packet->due < to->last->due) packet->due = to->last->due;  // a line keeps the order
    if (to->last)
        to->last->next = packet;
    else
        to->first = packet;
    to->last = packet;
}

static void deliver(struct direction *to, int file, int which) {
    for (double at = now(); to->first && to->first->due <= at;) {
        struct packet *packet = to->first;
        to->first = packet->next;
        if (!to->first) to->last = NULL;
        if (line->cut || write(file, packet->data, packet->size) < 0)
            line->lost++;
        else
            line->bytes[which] += packet->size;
        free(packet);
    }
}

int main(int count, char **words) {
    if (count != 6) {
        fprintf(stderr, "usage: wan STATE NET_A TAP_A NET_B TAP_B\n");
        return 2;
    }
    int state = open(words[1], O_RDWR);
    if (state < 0) fail(words[1]);
    line = mmap(NULL, sizeof *line, PROT_READ | PROT_WRITE, MAP_SHARED, state, 0);
    if (line == MAP_FAILED) fail("mmap");
    int files[2] = {tap(words[2], words[3]), tap(words[4], words[5])};
    struct direction to[2] = {0};
    static char data[70000];
    srand48(42);
    puts("ready");
    fflush(stdout);
    for (;;) {
        double wait = 1;
        for (int side = 0; side < 2; side++)
            if (to[side].first && to[side].first->due - now() < wait) wait = to[side].first->due - now();
        if (wait < 0) wait = 0;
        struct pollfd polled[2] = {{files[0], POLLIN, 0}, {files[1], POLLIN, 0}};
        struct timespec limit = {(time_t)wait, (long)((wait - (time_t)wait) * 1e9)};
        ppoll(polled, 2, &limit, NULL);
        for (int side = 0; side < 2; side++) {
            int size;
            // A bounded batch, so that a flood from one side does not starve the other.
            for (int batch = 0; batch < 64 && (size = read(files[side], data, sizeof data)) > 0; batch++)
                take(&to[!side], data, size);
        }
        for (int side = 0; side < 2; side++) deliver(&to[side], files[side], !side);
    }
}
