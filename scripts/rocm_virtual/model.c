/* A GPU for ROCr's "model" interface (version 0.4): memory, AQL queues and signals here, kernels on hktune's emulator.

   ROCr hands over memory as offsets into one aperture, and queues as offsets of their rings and pointers. A thread for
   each queue takes its 64-byte packets in order. A kernel dispatch goes to the Python that this process is, to the
   function that dispatch.py registers. What cannot go on is one line, and the process aborts, as ROCr's does on a memory
   fault: the model interface has no way to report one. The structures are those of the HSA system architecture and of
   amd_hsa_signal.h. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum packet_type { VENDOR = 0, INVALID = 1, DISPATCH = 2, BARRIER_AND = 3, BARRIER_OR = 5 };
enum { PACKET_BYTES = 64, BARRIER_SIGNALS = 5, AQL_QUEUE = 2 };
enum vendor_format { CACHE_FLUSH = 1, BARRIER_VALUE = 2 }; /* 1: PM4 commands, with which ROCr makes new code seen */
enum { WRITABLE = 1u << 31 }; /* of the flags of an allocation: kfd_ioctl.h */
static const struct timespec POLL = {.tv_nsec = 20000};

struct region {
  uint64_t address, size, serial, writable;
};

struct signal {
  int64_t kind;
  _Atomic int64_t value;
  uint64_t mailbox;
  uint32_t event, reserved;
  uint64_t start, end;
};

struct packet {
  _Atomic uint16_t header;
  uint8_t format, reserved[5];
  uint64_t words[6];
  uint64_t completion;
};

struct queue_info {
  uint64_t ring, write_pointer, read_pointer;
  uint64_t *doorbell;
  uint32_t ring_size, type;
};

struct queue {
  struct queue_info info;
  pthread_t thread;
  atomic_bool ended;
};

typedef void (*set_event_function)(void *data, unsigned event);
typedef int (*dispatcher)(uint64_t packet);

static struct model {
  uint8_t *base;
  set_event_function set_event;
  void *event_data;
  pthread_mutex_t lock;
  struct region *regions;
  size_t count, room;
  uint64_t serials;
  _Atomic(dispatcher) run;
} gpu = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void give_up(const char *why) {
  fprintf(stderr, "virtual GPU: %s\n", why);
  abort();
}

/* For dispatch.py. */

void model_set_dispatcher(dispatcher run) { gpu.run = run; }

uint8_t *model_aperture(void) { return gpu.base; }

/* Copies at most `room` regions to `out`; returns how many there are. */
size_t model_regions(struct region *out, size_t room) {
  pthread_mutex_lock(&gpu.lock);
  size_t count = gpu.count;
  memcpy(out, gpu.regions, (count < room ? count : room) * sizeof *out);
  pthread_mutex_unlock(&gpu.lock);
  return count;
}

/* What is used of the Python that this process is, if it is one. */
static struct python {
  int (*ensure)(void);
  void (*release)(int);
  int (*run)(const char *, void *);
  int (*disable_gc)(void);
  int (*enable_gc)(void);
} python;

static void find_python(void) {
  *(void **)&python.ensure = dlsym(RTLD_DEFAULT, "PyGILState_Ensure");
  *(void **)&python.release = dlsym(RTLD_DEFAULT, "PyGILState_Release");
  *(void **)&python.run = dlsym(RTLD_DEFAULT, "PyRun_SimpleStringFlags");
  *(void **)&python.disable_gc = dlsym(RTLD_DEFAULT, "PyGC_Disable");
  *(void **)&python.enable_gc = dlsym(RTLD_DEFAULT, "PyGC_Enable");
  if (!python.ensure || !python.release || !python.run || !python.disable_gc || !python.enable_gc)
    give_up("a kernel came, and this process is no Python 3.10 or newer that could emulate it");
  int state = python.ensure();
  python.run("import rocm_virtual.dispatch", NULL);
  python.release(state);
  if (!gpu.run) give_up("a kernel came, and the emulator could not be imported");
}

/* One kernel at a time. A garbage collection in the middle could call hipFree, which waits for this very kernel. */
static void dispatch(uint64_t packet) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  static pthread_mutex_t alone = PTHREAD_MUTEX_INITIALIZER;
  pthread_once(&once, find_python);
  pthread_mutex_lock(&alone);
  int state = python.ensure(), collects = python.disable_gc();
  if (gpu.run(packet)) abort(); /* having said why */
  if (collects) python.enable_gc();
  python.release(state);
  pthread_mutex_unlock(&alone);
}

/* Signals and packets. */

static void *at(uint64_t offset) { return gpu.base + offset; }

static int64_t value_of(uint64_t signal) { return ((struct signal *)at(signal))->value; }

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Whether a barrier of all (or of any) of its signals is passed: each counts down to 0. */
static bool passed(const struct packet *packet, bool any) {
  bool waits = false;
  for (int i = 0; i < BARRIER_SIGNALS; i++) {
    uint64_t signal = packet->words[i];
    if (!signal) continue;
    if (!value_of(signal)) {
      if (any) return true;
    } else {
      waits = true;
    }
  }
  return !waits;
}

/* Whether AMD's barrier of one signal is passed: (value & mask) compared with a number, by =, !=, < or >=. */
static bool value_passed(const struct packet *packet) {
  if (!packet->words[0]) return true;
  int64_t found = value_of(packet->words[0]) & (int64_t)packet->words[2], wanted = (int64_t)packet->words[1];
  switch ((uint32_t)packet->words[3]) {
    case 0: return found == wanted;
    case 1: return found != wanted;
    case 2: return found < wanted;
    default: return found >= wanted;
  }
}

static bool may_go_on(const struct packet *packet, uint8_t type) {
  if (type == INVALID) return false;
  if (type == BARRIER_AND) return passed(packet, false);
  if (type == BARRIER_OR) return passed(packet, true);
  return type != VENDOR || packet->format != BARRIER_VALUE || value_passed(packet);
}

static void carry_out(const struct packet *packet, uint8_t type, uint64_t address) {
  if (type == DISPATCH) return dispatch(address);
  bool vendor = type == VENDOR && (packet->format == BARRIER_VALUE || packet->format == CACHE_FLUSH);
  if (type != BARRIER_AND && type != BARRIER_OR && !vendor) give_up("a queue holds a packet of an unknown type");
}

static void complete(uint64_t handle, uint64_t start) {
  if (!handle) return;
  struct signal *signal = at(handle);
  signal->start = start;
  signal->end = now();
  signal->value--;
  if (!signal->mailbox) return;
  *(_Atomic uint64_t *)at(signal->mailbox) = signal->event;
  gpu.set_event(gpu.event_data, signal->event);
}

/* Takes packets in order until the queue is destroyed. */
static void *serve(void *argument) {
  struct queue *queue = argument;
  _Atomic uint64_t *written = at(queue->info.write_pointer), *read = at(queue->info.read_pointer);
  uint64_t count = queue->info.ring_size / PACKET_BYTES;
  while (!queue->ended) {
    uint64_t address = queue->info.ring + *read % count * PACKET_BYTES;
    struct packet *packet = at(address);
    uint8_t type = packet->header & 0xff;
    if (*read == *written || !may_go_on(packet, type)) {
      nanosleep(&POLL, NULL);
      continue;
    }
    uint64_t start = now();
    carry_out(packet, type, address);
    uint64_t completion = packet->completion;
    packet->header = INVALID;
    ++*read; /* from here on the packet is the runtime's again */
    complete(completion, start);
  }
  return NULL;
}

/* ROCr's table. There is one GPU. */

/* ROCr's own end of a process frees a model twice and aborts, so a process ends before that, with its status. */
static void leave(int status, void *unused) {
  (void)unused;
  fflush(NULL);
  _exit(status);
}

static struct model *create(void) {
  on_exit(leave, NULL);
  return &gpu;
}

static void destroy(struct model *model) { (void)model; }

static void set_aperture(struct model *model, void *base, uint64_t size) {
  (void)size;
  model->base = base;
}

static void allocated(struct model *model, void *address, uint64_t size, uint32_t flags) {
  pthread_mutex_lock(&model->lock);
  if (model->count == model->room) {
    model->room = model->room ? 2 * model->room : 256;
    model->regions = realloc(model->regions, model->room * sizeof *model->regions);
    if (!model->regions) abort();
  }
  model->regions[model->count++] = (struct region){(uint64_t)address, size, ++model->serials, !!(flags & WRITABLE)};
  pthread_mutex_unlock(&model->lock);
}

static void freed(struct model *model, void *address, uint64_t size) {
  (void)size;
  pthread_mutex_lock(&model->lock);
  for (size_t i = 0; i < model->count; i++)
    if (model->regions[i].address == (uint64_t)address) {
      model->regions[i] = model->regions[--model->count];
      break;
    }
  pthread_mutex_unlock(&model->lock);
}

static void set_notify_event(struct model *model, void (*notify)(void *), void *data) {
  (void)model, (void)notify, (void)data;
}

static void set_wait_event(struct model *model, void (*wait)(void *, uint64_t, uint64_t), void *data) {
  (void)model, (void)wait, (void)data;
}

static void set_set_event(struct model *model, set_event_function set_event, void *data) {
  model->set_event = set_event;
  model->event_data = data;
}

static struct queue *register_queue(struct model *model, struct queue_info *info) {
  (void)model;
  struct queue *queue = calloc(1, sizeof *queue);
  if (!queue) abort();
  queue->info = *info;
  if (info->type == AQL_QUEUE && pthread_create(&queue->thread, NULL, serve, queue)) abort();
  return queue;
}

static void destroy_queue(struct model *model, struct queue *queue) {
  (void)model;
  queue->ended = true;
  if (queue->info.type == AQL_QUEUE) pthread_join(queue->thread, NULL);
  free(queue);
}

static const struct {
  uint32_t major, minor;
  struct model *(*create)(void);
  void (*destroy)(struct model *);
  void (*set_aperture)(struct model *, void *, uint64_t);
  void (*allocated)(struct model *, void *, uint64_t, uint32_t);
  void (*freed)(struct model *, void *, uint64_t);
  void (*set_notify_event)(struct model *, void (*)(void *), void *);
  void (*set_wait_event)(struct model *, void (*)(void *, uint64_t, uint64_t), void *);
  struct queue *(*register_queue)(struct model *, struct queue_info *);
  void (*set_set_event)(struct model *, set_event_function, void *);
  void (*destroy_queue)(struct model *, struct queue *);
} table = {0,     4,     create,           destroy,        set_aperture,   allocated,
           freed, set_notify_event, set_wait_event, register_queue, set_set_event,  destroy_queue};

const void *get_hsakmt_model_functions(void) { return &table; }
