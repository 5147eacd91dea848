import Primitives
import Synchronization

/// How a node stands with its clients' connections.
package struct ConnectionStatus: Sendable {
    package var open: Int
    package var max: Int
    /// Whether a worker has lacked places or descriptors in the last seconds.
    package var scarce: Bool
    /// Idle ones closed to make room, and those refused by `connectionsPerClient`, since the start.
    package var shed: Int
    package var refused: Int
    /// Connections of trusted peers that began without a PROXY header where one had to come.
    package var refusedHeaders: Int
}

/// Counts the clients' connections of a node against its limits.
package final class ConnectionLimits: Sendable {
    private let total = Atomic<Int>(0)
    private let totalMax: Atomic<Int>
    private let perClientMax: Atomic<Int>
    /// Whether there has been a limit by client, so that there may be counts.
    private let counts: Atomic<Bool>
    private let perClient = Mutex<[IPAddress: Int]>([:])

    /// `nil`: no limit; the descriptor limit bounds the total all the same.
    init(total: Int?, perClient: Int?, descriptors: Int) {
        totalMax = Atomic(Self.bound(total, descriptors))
        perClientMax = Atomic(perClient ?? 0)
        counts = Atomic(perClient != nil)
    }

    private static func bound(_ total: Int?, _ descriptors: Int) -> Int {
        // Each client may need a backend connection too, and the node some descriptors for itself.
        let bound = max(DataPathLimits.connectionsMin, (descriptors - DataPathLimits.descriptorsReserved) / 2)
        return min(total ?? bound, bound)
    }

    /// Other limits, from here on: nobody who is connected is closed for them.
    func limit(total: Int?, perClient: Int?, descriptors: Int) {
        totalMax.store(Self.bound(total, descriptors), ordering: .relaxed)
        if perClient != nil { counts.store(true, ordering: .relaxed) }
        perClientMax.store(perClient ?? 0, ordering: .relaxed)
    }

    /// Idle connections that were closed to make room.
    let shed = Atomic<Int>(0)
    /// Connections of clients that had their share.
    let refused = Atomic<Int>(0)
    /// Connections whose PROXY header was none.
    let refusedHeaders = Atomic<Int>(0)
    /// Workers that have lately lacked places or descriptors.
    let pressedWorkers = Atomic<Int>(0)

    package var open: Int { total.load(ordering: .relaxed) }
    package var openMax: Int { totalMax.load(ordering: .relaxed) }

    package var status: ConnectionStatus {
        ConnectionStatus(
            open: open, max: openMax, scarce: pressedWorkers.load(ordering: .relaxed) > 0,
            shed: shed.load(ordering: .relaxed), refused: refused.load(ordering: .relaxed),
            refusedHeaders: refusedHeaders.load(ordering: .relaxed))
    }

    /// Takes a place for one more connection; `false` where all are taken.
    func reserve() -> Bool {
        guard total.add(1, ordering: .relaxed).newValue > openMax else { return true }
        total.subtract(1, ordering: .relaxed)
        return false
    }

    func release() { total.subtract(1, ordering: .relaxed) }

    /// Counts a connection of a client; `false` where that has its share.
    func enter(_ client: IPAddress) -> Bool {
        let most = perClientMax.load(ordering: .relaxed)
        guard most > 0 else { return true }
        return perClient.withLock { counts in
            let count = counts[client.subscriber, default: 0]
            guard count < most else { return false }
            counts[client.subscriber] = count + 1
            return true
        }
    }

    func leave(_ client: IPAddress) {
        guard counts.load(ordering: .relaxed) else { return }
        perClient.withLock { counts in
            let count = counts[client.subscriber, default: 0]
            counts[client.subscriber] = count > 1 ? count - 1 : nil
        }
    }
}
