import Primitives
import Synchronization

/// Counts the clients' connections of a node against its limits.
package final class ConnectionLimits: Sendable {
    enum Admission {
        case admitted
        case tooMany
        case tooManyOfClient
    }

    private let total = Atomic<Int>(0)
    private let totalMax: Int
    private let perClientMax: Int
    private let perClient = Mutex<[IPAddress: Int]>([:])

    /// `nil`: no limit; the descriptor limit bounds the total all the same.
    init(total: Int?, perClient: Int?, descriptors: Int) {
        // Each client may need a backend connection too, and the node some descriptors for itself.
        let bound = max(16, (descriptors - Self.reserved) / 2)
        totalMax = min(total ?? bound, bound)
        perClientMax = perClient ?? 0
    }

    /// Descriptors for listeners, Redis, probes, logs and the admin listener.
    private static let reserved = 128

    package var open: Int { total.load(ordering: .relaxed) }
    package var openMax: Int { totalMax }

    func admit(_ address: IPAddress) -> Admission {
        let count = total.add(1, ordering: .relaxed).newValue
        guard count <= totalMax else {
            total.subtract(1, ordering: .relaxed)
            return .tooMany
        }
        guard perClientMax > 0 else { return .admitted }
        let admitted = perClient.withLock { counts in
            let count = counts[address.subscriber, default: 0]
            guard count < perClientMax else { return false }
            counts[address.subscriber] = count + 1
            return true
        }
        if !admitted { total.subtract(1, ordering: .relaxed) }
        return admitted ? .admitted : .tooManyOfClient
    }

    func left(_ address: IPAddress) {
        total.subtract(1, ordering: .relaxed)
        guard perClientMax > 0 else { return }
        perClient.withLock { counts in
            let count = counts[address.subscriber, default: 0]
            counts[address.subscriber] = count > 1 ? count - 1 : nil
        }
    }
}
