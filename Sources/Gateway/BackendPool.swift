// One worker's connections to one backend: idle ones to use again, a bound on all, and a queue for those who wait.

import Configuration
import EventLoop
import HTTP1
import LinuxIO
import Primitives

final class BackendPool {
    let backend: Backend
    /// The backend's own, one step away.
    let basePath: [UInt8]
    let headTail: [UInt8]
    let headTailWithHost: [UInt8]
    /// A worker lives as long as the process.
    let worker: Worker
    private let loop: Loop
    let timeouts: Configuration.Timeouts
    /// Idle connections, the most recently used last: the others grow old and are closed. Those behind the first `settled`
    /// became idle in this turn of the loop: what a backend has sent behind its answer shows in the next turn's events, so
    /// these are used only where there are no others, and not without asking the socket.
    ///
    /// The list is taken out while it is worked on, as buffers are (`ByteBuffer.take`).
    private var idle: [BackendConnection] = []
    private var settled = 0
    private var restingTurn: UInt64 = 0
    private(set) var open = 0
    /// Those who wait for a place; made for the first of them.
    private var waiting: WaitingList?
    private var idleMax: Int
    private let openMax: Int
    /// Memory of those that nobody uses.
    var idleBytes: Int { idle.reduce(0) { $0 + $1.bufferBytes } }
    /// The address that answered last; the others are tried after it.
    var preferredAddress = 0

    private struct Waiting {
        weak var client: ClientConnection?
        var exchange: UInt64
        var deadline: MonotonicTime
    }

    private final class WaitingList {
        var entries: [Waiting] = []
    }

    init(_ backend: Backend, service: Service, worker: Worker) {
        self.backend = backend
        basePath = backend.basePath
        headTail = backend.headTail
        headTailWithHost = backend.headTailWithHost
        self.worker = worker
        loop = worker.loop
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
        if !fresh {
            settle()
            while settled > 0 {
                let connection = takeSettled()
                // A request that fails once more is not sent a third time, so its connection had better be alive.
                if connection.isUsable, client.mayFindStale || connection.isStillOpen {
                    return .reused(connection)
                }
                connection.close()
            }
            while !idle.isEmpty {
                let connection = takeLast()
                if connection.isUsable, connection.isStillOpen { return .reused(connection) }
                connection.close()
            }
        }
        if open >= openMax {
            guard fresh, let oldest = idle.first else { return queue(client, exchange) }
            // A fresh connection is wanted and idle ones hold the places: one of them makes room.
            oldest.close()
        }
        guard let connection = BackendConnection.connect(in: self, for: client) else { return .failed }
        return .connecting(connection)
    }

    private func queue(_ client: ClientConnection, _ exchange: UInt64) -> Acquired {
        let list = waiting ?? WaitingList()
        waiting = list
        let now = loop.now
        // Those who have given up, in the order of their coming.
        let expired = list.entries.firstIndex { $0.deadline >= now } ?? list.entries.count
        list.entries.removeSubrange(0..<expired)
        let deadline = now + timeouts.connect
        list.entries.append(Waiting(client: client, exchange: exchange, deadline: deadline))
        client.stream.deadline = deadline
        return .queued
    }

    /// The last one that was idle before this turn; one that became idle in it takes its place in the list.
    private func takeSettled() -> BackendConnection {
        var list: [BackendConnection] = []
        swap(&list, &idle)
        settled -= 1
        list.swapAt(settled, list.count - 1)
        let connection = list.removeLast()
        swap(&list, &idle)
        return connection
    }

    private func takeLast() -> BackendConnection {
        var list: [BackendConnection] = []
        swap(&list, &idle)
        let connection = list.removeLast()
        swap(&list, &idle)
        return connection
    }

    /// Takes back a connection that has finished an exchange and can serve another.
    func release(_ connection: BackendConnection) {
        if let waiting, handOver(connection, to: waiting) { return }
        settle()
        guard idle.count < idleMax else {
            connection.close()
            return
        }
        connection.stream.deadline = ClientConnection.deadline(loop.now, timeouts.idle)
        var list: [BackendConnection] = []
        swap(&list, &idle)
        list.append(connection)
        swap(&list, &idle)
    }

    /// Gives a connection, or where it is of no more use its place, to the first who waits; `false` where nobody does.
    private func handOver(_ connection: BackendConnection, to list: WaitingList) -> Bool {
        while !list.entries.isEmpty {
            let next = list.entries.removeFirst()
            guard let client = next.client, client.isWaiting(exchange: next.exchange) else { continue }
            if connection.isUsable, connection.isStillOpen {
                client.backendAvailable(connection)
            } else {
                // Its place is free for a new one.
                list.entries.insert(next, at: 0)
                connection.close()
            }
            return true
        }
        return false
    }

    /// In a new turn, whatever had arrived on connections that were idle before it has been announced.
    private func settle() {
        let turn = loop.turns
        guard restingTurn != turn else { return }
        restingTurn = turn
        settled = idle.count
    }

    func opened() {
        open += 1
        backend.traffic.connectionOpened(worker: worker.index)
    }

    /// A connection has closed: whoever waits may open one.
    func closed(_ connection: BackendConnection) {
        open -= 1
        backend.traffic.connectionClosed(worker: worker.index)
        var list: [BackendConnection] = []
        swap(&list, &idle)
        if let index = list.lastIndex(where: { $0 === connection }) {
            list.remove(at: index)
            if index < settled { settled -= 1 }
        }
        swap(&list, &idle)
        guard let waiting else { return }
        while open < openMax, !waiting.entries.isEmpty {
            let next = waiting.entries.removeFirst()
            if let client = next.client, client.isWaiting(exchange: next.exchange) {
                client.placeAvailable(in: self)
            }
        }
    }

    /// Another configuration has taken its place: what is in use ends with its exchange.
    func retire() {
        idleMax = 0
        closeIdle()
    }

    func closeIdle() {
        var list: [BackendConnection] = []
        swap(&list, &idle)
        settled = 0
        for connection in list { connection.close() }
    }
}
