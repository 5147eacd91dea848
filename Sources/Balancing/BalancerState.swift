import Synchronization

/// What the workers of a node share of a service's balancing: counters that live on when the set of usable backends
/// changes.
package final class BalancerState: Sendable {
    /// Picks so far, which is what rotation follows.
    let rotation = Atomic<UInt64>(0)
    /// Requests at each backend now, by its place in the service.
    private let inFlight: [Counter]

    /// An atomic that an array can hold.
    private final class Counter: Sendable {
        let value = Atomic<Int>(0)
    }

    package init(backendCount: Int) { inFlight = (0..<backendCount).map { _ in Counter() } }

    package func began(_ backend: Int) { inFlight[backend].value.add(1, ordering: .relaxed) }
    package func ended(_ backend: Int) { inFlight[backend].value.subtract(1, ordering: .relaxed) }
    package func inFlight(_ backend: Int) -> Int { inFlight[backend].value.load(ordering: .relaxed) }
}
