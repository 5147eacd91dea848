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
    private let totalMax: Int
    private let perClientMax: Int
    private let perClient = Mutex<[IPAddress: Int]>([:])

    /// `nil`: no limit; the descriptor limit bounds the total all the same.
    init(total: Int?, perClient: Int?, descriptors: Int) {
        // Each client may need a backend connection too, and the node some descriptors for itself.
        let bound = max(DataPathLimits.connectionsMin, (descriptors - DataPathLimits.descriptorsReserved) / 2)
        totalMax = min(total ?? bound, bound)
        perClientMax = perClient ?? 0
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
    package var openMax: Int { totalMax }

    package var status: ConnectionStatus {
        ConnectionStatus(
            open: open, max: totalMax, scarce: pressedWorkers.load(ordering: .relaxed) > 0,
            shed: shed.load(ordering: .relaxed), refused: refused.load(ordering: .relaxed),
            refusedHeaders: refusedHeaders.load(ordering: .relaxed))
    }

    /// Takes a place for one more connection; `false` where all are taken.
    func reserve() -> Bool {
        guard total.add(1, ordering: .relaxed).newValue > totalMax else { return true }
        total.subtract(1, ordering: .relaxed)
        return false
    }

    func release() { total.subtract(1, ordering: .relaxed) }

    /// Counts a connection of a client; `false` where that has its share.
    func enter(_ client: IPAddress) -> Bool {
        guard perClientMax > 0 else { return true }
        return perClient.withLock { counts in
            let count = counts[client.subscriber, default: 0]
            guard count < perClientMax else { return false }
            counts[client.subscriber] = count + 1
            return true
        }
    }

    func leave(_ client: IPAddress) {
        guard perClientMax > 0 else { return }
        perClient.withLock { counts in
            let count = counts[client.subscriber, default: 0]
            counts[client.subscriber] = count > 1 ? count - 1 : nil
        }
    }
}
