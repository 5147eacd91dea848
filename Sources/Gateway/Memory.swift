// Where the memory of a node is, as far as it lies in buffers and tables of its own: for operators who wonder what grows.
//
// What belongs to a worker is summed up by that worker when somebody asks, some connections a turn, so that one with very
// many goes on serving; what is told is the sum that was last complete. What workers share says by itself how large it is.

import EventLoop
import LinuxIO
import Primitives
import RateLimiting

/// What the memory is for. The names are labels of metrics, and stable.
package enum MemoryPool: Int, CaseIterable, Sendable {
    /// Buffers of clients' connections: heads and bodies that wait, answers that the client has not taken.
    case clients
    /// Buffers of connections to backends.
    case backends
    /// Buffers of the lines to Redis that decide limits.
    case redis
    /// Tables of limits: who is counted, what was admitted lately, which windows are full, buckets.
    case limits
    /// Credentials that are remembered with whose they are.
    case callers
    /// Encoders of gzip.
    case compression
    /// Counters and histograms of the metrics.
    case counters
    /// Each worker's own buffers, into which everything is read.
    case scratch
    /// Lines of the access log that wait to be written.
    case accessLog

    package var name: String { self == .accessLog ? "access_log" : "\(self)" }
}

/// What the workers have last found.
package final class MemoryBoard: Sendable {
    private let bytes: Counters

    init(workers: Int) { bytes = Counters(width: MemoryPool.allCases.count, lanes: workers) }

    /// Only the worker's own thread may.
    func set(_ value: Int, _ pool: MemoryPool, worker: Int) {
        bytes.add(value - bytes.value(pool.rawValue, lane: worker), to: pool.rawValue, lane: worker)
    }

    func total(_ pool: MemoryPool) -> Int { bytes.total(pool.rawValue) }
}

/// A worker's walk over its connections.
final class MemorySweep {
    private unowned let worker: Worker
    private var timer: LoopTimer!
    private var clients = 0
    private var backends = 0
    /// The next client, and the next pool of connections to a backend; those that come and go meanwhile may be missed.
    private var nextClient = 0
    private var nextPool = 0
    private var isRunning = false

    /// Connections of one turn: some ten microseconds.
    private static let stepMax = 512
    private static let pause = TimeSpan.milliseconds(5)

    init(_ worker: Worker) {
        self.worker = worker
        timer = LoopTimer(worker.loop) { [weak self] in self?.step() }
    }

    func begin() {
        guard !isRunning else { return }
        isRunning = true
        (clients, backends, nextClient, nextPool) = (0, 0, 0, 0)
        step()
    }

    private func step() {
        var left = Self.stepMax
        while left > 0, nextClient < worker.clients.count {
            let client = worker.clients[nextClient]
            clients += client.bufferBytes
            backends += client.backend?.bufferBytes ?? 0
            nextClient += 1
            left -= 1
        }
        let pools = worker.pools.flatMap { $0 }
        while left > 0, nextPool < pools.count {
            backends += pools[nextPool].idleBytes
            left -= 1 + pools[nextPool].open
            nextPool += 1
        }
        guard nextClient >= worker.clients.count, nextPool >= pools.count else {
            timer.schedule(after: Self.pause)
            return
        }
        isRunning = false
        worker.tell(clients: clients, backends: backends)
    }
}

extension ClientConnection {
    /// Memory of what is held here, and of what the client has not taken.
    fileprivate var bufferBytes: Int {
        heldCapacity + outbound.capacity + logged.capacity + stream.outputCapacity
            + (trailers.map { $0.request.capacity + $0.response.capacity } ?? 0)
    }
}

extension Worker {
    fileprivate func tell(clients: Int, backends: Int) {
        let board = node.memory
        board.set(clients, .clients, worker: index)
        board.set(backends, .backends, worker: index)
        board.set(limiter?.bufferBytes ?? 0, .redis, worker: index)
        board.set(limiter?.tableBytes ?? heldHere?.bytes ?? 0, .limits, worker: index)
        board.set(callers?.bytes ?? 0, .callers, worker: index)
        board.set(gzips.bytes, .compression, worker: index)
        board.set(input.capacity + output.capacity + surplus.capacity, .scratch, worker: index)
    }
}

extension Control {
    /// Lets the workers look again; `memory` follows some milliseconds later.
    package func weighMemory() { for worker in workers { worker.post(.weigh) } }

    package func memory(_ pool: MemoryPool) -> Int {
        let ofWorkers = node.memory.total(pool)
        switch pool {
        case .limits:
            switch node.limiterSetup {
            case .none: return ofWorkers
            case .memory(let store): return ofWorkers + store.bytes
            case .redis(let context, _, _): return ofWorkers + context.bytes
            }
        case .counters: return node.traffic.bytes + (generation.limiterContext?.counterBytes ?? 0)
        case .accessLog: return node.accessLogSink?.waiting ?? 0
        case .clients, .backends, .redis, .callers, .compression, .scratch: return ofWorkers
        }
    }
}
