// Stands in for NCCL in tests: all ranks are in one process and an operation is done when the last
// rank of its group has queued it. Ids, groups and arguments are checked as NCCL would; memory is
// the host's.

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

struct Id {
  char internal[128];
};

enum Kind { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST };

struct Call {
  Kind kind;
  const void* from;
  void* to;
  size_t count;
  int type, op, root;
  uint64_t stream;
};

struct Group;
struct Comm {
  Group* group;
  int rank;
  std::vector<Call> queued;
};
struct Group {
  int size;
  std::vector<Comm*> comms;
};

static std::map<std::string, Group> groups;
static int ids = 0, broken = 0, aborted = 0;
static uint64_t lastStream = 0;

constexpr int INVALID = 4;  // ncclInvalidArgument

static size_t bytesOf(int type) { return type == 1 ? 1 : type == 3 || type == 7 ? 4 : type == 8 ? 8 : 0; }

template <class T>
static void reduce(T* sum, const T* other, size_t count, int op) {
  for (size_t i = 0; i < count; i++)
    sum[i] = op == 0   ? sum[i] + other[i]
             : op == 2 ? (other[i] > sum[i] ? other[i] : sum[i])
                       : (other[i] < sum[i] ? other[i] : sum[i]);
}

static void reduceBytes(void* sum, const void* other, size_t count, int type, int op) {
  if (type == 1) reduce(static_cast<uint8_t*>(sum), static_cast<const uint8_t*>(other), count, op);
  if (type == 3) reduce(static_cast<uint32_t*>(sum), static_cast<const uint32_t*>(other), count, op);
  if (type == 7) reduce(static_cast<float*>(sum), static_cast<const float*>(other), count, op);
  if (type == 8) reduce(static_cast<double*>(sum), static_cast<const double*>(other), count, op);
}

/// Does the oldest call of the group, once all its ranks have queued one.
static int run(Group& g) {
  if (static_cast<int>(g.comms.size()) < g.size) return 0;
  for (Comm* c : g.comms) {
    if (c == nullptr || c->queued.empty()) return 0;
  }
  const Call first = g.comms[0]->queued[0];
  const size_t bytes = bytesOf(first.type), n = g.size;
  std::vector<char> all(n * first.count * bytes * (first.kind == REDUCE_SCATTER ? n : 1));
  const size_t part = all.size() / n;
  for (size_t r = 0; r < n; r++) {
    const Call& c = g.comms[r]->queued[0];
    if (c.kind != first.kind || c.count != first.count || c.type != first.type || c.op != first.op ||
        c.root != first.root)
      return INVALID;
    std::memcpy(all.data() + r * part, c.from, part);
  }
  std::vector<char> sum(all.begin(), all.begin() + part);
  if (first.kind == ALL_REDUCE || first.kind == REDUCE_SCATTER) {
    for (size_t r = 1; r < n; r++) reduceBytes(sum.data(), all.data() + r * part, part / bytes, first.type, first.op);
  }
  for (size_t r = 0; r < n; r++) {
    const Call& c = g.comms[r]->queued[0];
    if (c.kind == ALL_REDUCE) std::memcpy(c.to, sum.data(), part);
    if (c.kind == REDUCE_SCATTER) std::memcpy(c.to, sum.data() + r * c.count * bytes, c.count * bytes);
    if (c.kind == ALL_GATHER) std::memcpy(c.to, all.data(), all.size());
    if (c.kind == BROADCAST) std::memcpy(c.to, all.data() + c.root * part, part);
  }
  for (Comm* c : g.comms) c->queued.erase(c->queued.begin());
  return 0;
}

static int queue(Comm* c, const Call& call) {
  if (c == nullptr || bytesOf(call.type) == 0 || call.from == nullptr || call.to == nullptr) return INVALID;
  lastStream = call.stream;
  c->queued.push_back(call);
  return run(*c->group);
}

extern "C" {

int ncclGetUniqueId(Id* id) {
  std::memset(id, 0, sizeof *id);
  for (size_t i = 0; i < sizeof id->internal; i++) id->internal[i] = static_cast<char>(ids + 37 * i);
  ids++;
  return 0;
}

int ncclCommInitRank(Comm** comm, int size, Id id, int rank) {
  Group& g = groups[std::string(id.internal, sizeof id.internal)];
  if (g.size == 0) g.size = size;
  if (g.size != size || rank < 0 || rank >= size) return INVALID;
  g.comms.resize(size);
  if (g.comms[rank] != nullptr) return INVALID;
  *comm = g.comms[rank] = new Comm{&g, rank, {}};
  return 0;
}

int ncclAllReduce(const void* from, void* to, size_t count, int type, int op, Comm* c, uint64_t s) {
  return queue(c, {ALL_REDUCE, from, to, count, type, op, 0, s});
}
int ncclReduceScatter(const void* from, void* to, size_t count, int type, int op, Comm* c, uint64_t s) {
  return queue(c, {REDUCE_SCATTER, from, to, count, type, op, 0, s});
}
int ncclAllGather(const void* from, void* to, size_t count, int type, Comm* c, uint64_t s) {
  return queue(c, {ALL_GATHER, from, to, count, type, 0, 0, s});
}
int ncclBroadcast(const void* from, void* to, size_t count, int type, int root, Comm* c, uint64_t s) {
  return queue(c, {BROADCAST, from, to, count, type, 0, root, s});
}

int ncclCommDestroy(Comm* c) {
  c->group->comms[c->rank] = nullptr;
  delete c;
  return 0;
}
int ncclGroupStart() { return 0; }
int ncclGroupEnd() { return 0; }
int ncclCommAbort(Comm* c) {
  aborted++;
  return ncclCommDestroy(c);
}
int ncclCommGetAsyncError(Comm*, int* code) {
  *code = broken;
  return 0;
}
const char* ncclGetErrorString(int code) {
  return code == INVALID ? "invalid argument" : code == 6 ? "remote process exited" : "no error";
}

/// For the tests: what the next look finds, how many groups were aborted, the stream of the last
/// call.
void standInBreak(int code) { broken = code; }
int standInAborted() { return aborted; }
uint64_t standInStream() { return lastStream; }

}  // extern "C"
