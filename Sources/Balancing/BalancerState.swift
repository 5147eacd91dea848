// What the workers of a node share about one service and what outlives every snapshot: a rotation counter, and how many
// requests each backend has in flight.
//
// Atomics, all relaxed: each is a count of its own, nothing is published through them.

import Synchronization

/// Counters of one service, written by all workers.
package final class BalancerState: Sendable {
    /// Counters stand in one block for each 32 backends: an array can not hold atomics.
    private let blocks: [Block]
    package let backendCount: Int
    private let rotation = Atomic<UInt64>(0)
    private let draws = Atomic<UInt64>(0)

    private final class Block: Sendable {
        static let size = 32
        let inFlight = InlineArray<32, Atomic<Int>> { _ in Atomic(0) }
        /// What the other nodes have in flight, as far as they have told.
        let elsewhere = InlineArray<32, Atomic<Int>> { _ in Atomic(0) }
    }

    package init(backendCount: Int) {
        self.backendCount = max(0, backendCount)
        blocks = (0..<(self.backendCount + Block.size - 1) / Block.size).map { _ in Block() }
    }

    /// A request was handed to the backend. Does nothing for an index that is none.
    @inline(__always)
    package func began(_ index: Int) { add(1, to: index) }

    /// That request ended, however it did. Called once for each `began`.
    @inline(__always)
    package func ended(_ index: Int) { add(-1, to: index) }

    private func add(_ delta: Int, to index: Int) {
        guard index >= 0, index < backendCount else { return }
        blocks[index / Block.size].inFlight[index % Block.size].wrappingAdd(delta, ordering: .relaxed)
    }

    /// Requests in flight on this node; 0 for an index that is none.
    package func inFlight(_ index: Int) -> Int {
        guard index >= 0, index < backendCount else { return 0 }
        return blocks[index / Block.size].inFlight[index % Block.size].load(ordering: .relaxed)
    }

    /// The number that the next pick of the rotation gets.
    var currentTurn: UInt64 { rotation.load(ordering: .relaxed) }

    /// Requests in flight on all nodes, as far as is known.
    @inline(__always)
    func load(_ index: Int) -> Int { inFlight(index) + elsewhere(index) }

    package func elsewhere(_ index: Int) -> Int {
        guard index >= 0, index < backendCount else { return 0 }
        return blocks[index / Block.size].elsewhere[index % Block.size].load(ordering: .relaxed)
    }

    /// What the other nodes have in flight there now.
    package func setElsewhere(_ count: Int, of index: Int) {
        guard index >= 0, index < backendCount else { return }
        blocks[index / Block.size].elsewhere[index % Block.size].store(max(0, count), ordering: .relaxed)
    }

    func draw() -> UInt64 { draws.wrappingAdd(1, ordering: .relaxed).oldValue }

    /// The next number of the rotation; each is given once.
    @inline(__always)
    func turn() -> UInt64 { rotation.wrappingAdd(1, ordering: .relaxed).oldValue }
}
