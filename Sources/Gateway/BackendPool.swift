// One worker's connections to one backend: idle ones to use again, a bound on all, and a queue for those who wait.

import Configuration
import EventLoop
import HTTP1
import LinuxIO
import Primitives

final class BackendPool {
    let backend: Backend
    let service: Service
    /// A worker lives as long as the process.
    let worker: Worker
    let timeouts: Configuration.Timeouts
    /// The most recently used last: the others grow old and are closed.
    private var idle: [BackendConnection] = []
    /// Those that became idle in this turn of the loop. What a backend has sent behind its answer shows in the next
    /// turn's events, so these are used only where there are no others, and not without asking the socket.
    private var resting: [BackendConnection] = []
    private var restingTurn: UInt64 = 0
    private(set) var open = 0
    private var waiting: [Waiting] = []
    private let idleMax: Int
    private let openMax: Int
    /// The address that answered last; the others are tried after it.
    var preferredAddress = 0

    private struct Waiting {
        weak var client: ClientConnection?
        var exchange: UInt64
        var deadline: MonotonicTime
    }

    init(_ backend: Backend, service: Service, worker: Worker) {
        self.backend = backend
        self.service = service
        self.worker = worker
        timeouts = service.settings.timeouts
        // A node's limits are shared out over its workers; a worker may always have one connection.
        let pool = service.settings.pool
        idleMax = (pool.idle + worker.count - 1) / worker.count
        openMax = pool.connections.map { max(1, $0 / worker.count) } ?? .max
    }

    enum Acquired {
        /// An idle connection: the peer may have closed it without our knowing yet.
        case reused(BackendConnection)
        /// On its way; the client is told when it is made or has failed.
        case connecting(BackendConnection)
        case queued
        case failed
    }

    func acquire(for client: ClientConnection, exchange: UInt64, fresh: Bool) -> Acquired {
        settle()
        if !fresh {
            while let connection = idle.popLast() {
                // A request that fails once more is not sent a third time, so its connection had better be alive.
                if connection.isUsable, client.mayFindStale || connection.isStillOpen {
                    return .reused(connection)
                }
                connection.close()
            }
            while let connection = resting.popLast() {
                if connection.isUsable, connection.isStillOpen { return .reused(connection) }
                connection.close()
            }
        }
        if open >= openMax {
            if fresh, let oldest = idle.first ?? resting.first {
                // A fresh connection is wanted and idle ones hold the places: one of them makes room.
                oldest.close()
            } else {
                let now = worker.loop.now
                // Those who have given up, in the order of their coming.
                let expired = waiting.firstIndex { $0.deadline >= now } ?? waiting.count
                waiting.removeSubrange(0..<expired)
                let deadline = now + timeouts.connect
                waiting.append(Waiting(client: client, exchange: exchange, deadline: deadline))
                client.stream.deadline = deadline
                return .queued
            }
        }
        guard let connection = BackendConnection.connect(in: self, for: client) else { return .failed }
        return .connecting(connection)
    }

    /// Takes back a connection that has finished an exchange and can serve another.
    func release(_ connection: BackendConnection) {
        while !waiting.isEmpty {
            let next = waiting.removeFirst()
            if let client = next.client, client.isWaiting(exchange: next.exchange) {
                guard connection.isUsable, connection.isStillOpen else {
                    // Its place is free for a new one.
                    waiting.insert(next, at: 0)
                    connection.close()
                    return
                }
                client.backendAvailable(connection)
                return
            }
        }
        settle()
        guard idle.count + resting.count < idleMax else {
            connection.close()
            return
        }
        connection.stream.deadline = ClientConnection.deadline(worker.loop.now, timeouts.idle)
        resting.append(connection)
    }

    /// In a new turn, whatever had arrived on resting connections has been announced.
    private func settle() {
        guard restingTurn != worker.loop.turns else { return }
        restingTurn = worker.loop.turns
        guard !resting.isEmpty else { return }
        idle.append(contentsOf: resting)
        resting.removeAll(keepingCapacity: true)
    }

    func opened() { open += 1 }

    /// A connection has closed: whoever waits may open one.
    func closed(_ connection: BackendConnection) {
        open -= 1
        if let index = idle.lastIndex(where: { $0 === connection }) { idle.remove(at: index) }
        if let index = resting.lastIndex(where: { $0 === connection }) { resting.remove(at: index) }
        while open < openMax, !waiting.isEmpty {
            let next = waiting.removeFirst()
            if let client = next.client, client.isWaiting(exchange: next.exchange) {
                client.placeAvailable(in: self)
            }
        }
    }

    func closeIdle() {
        let connections = idle + resting
        idle.removeAll()
        resting.removeAll()
        for connection in connections { connection.close() }
    }
}
