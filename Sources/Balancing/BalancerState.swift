// What the workers of a node share about one service and what outlives every snapshot: a rotation counter, and how many
// requests each backend has in flight.
//
// Atomics, all relaxed: each is a count of its own, nothing is published through them.

import Synchronization

/// Counters of one service, written by all workers.
package final class BalancerState: Sendable {
    /// Counters stand in one block for each 32 backends: an array can not hold atomics.
    private let blocks: [Block]
    /// The counter of each backend. It stays the backend's own while others come and go.
    private let places: [Int]
    package var backendCount: Int { places.count }
    private let rotation = Atomic<UInt64>(0)
    private let draws = Atomic<UInt64>(0)

    private final class Block: Sendable {
        static let size = 32
        let inFlight = InlineArray<32, Atomic<Int>> { _ in Atomic(0) }
        /// What the other nodes have in flight, as far as they have told.
        let elsewhere = InlineArray<32, Atomic<Int>> { _ in Atomic(0) }
    }

    package init(backendCount: Int) {
        places = Array(0..<max(0, backendCount))
        blocks = Self.blocks(for: places.count)
    }

    /// The counters of a service whose backends are others than before. What is in flight at one that stays is known to
    /// both.
    ///
    /// - Parameter former: the index that each backend had before; `nil` for those that are new.
    package init(after before: BalancerState, former: [Int?]) {
        let kept = former.map { index in
            index.flatMap { before.places.indices.contains($0) ? before.places[$0] : nil }
        }
        let taken = Set(kept.compactMap { $0 })
        // One that was let go, and where requests or tunnels of before still are, counts them to their end.
        var free = (0..<before.blocks.count * Block.size).filter { !taken.contains($0) && before.isIdle($0) }[...]
        var end = before.blocks.count * Block.size
        var places: [Int] = []
        for place in kept {
            if let place = place ?? free.popFirst() {
                places.append(place)
            } else {
                places.append(end)
                end += 1
            }
        }
        self.places = places
        let more = (end + Block.size - 1) / Block.size - before.blocks.count
        blocks = before.blocks + (0..<more).map { _ in Block() }
        for (index, place) in kept.enumerated() where place == nil { setElsewhere(0, of: index) }
    }

    private static func blocks(for count: Int) -> [Block] {
        (0..<(count + Block.size - 1) / Block.size).map { _ in Block() }
    }

    private func isIdle(_ place: Int) -> Bool {
        blocks[place / Block.size].inFlight[place % Block.size].load(ordering: .relaxed) == 0
    }

    /// A request was handed to the backend. Does nothing for an index that is none.
    @inline(__always)
    package func began(_ index: Int) { add(1, to: index) }

    /// That request ended, however it did. Called once for each `began`.
    @inline(__always)
    package func ended(_ index: Int) { add(-1, to: index) }

    private func add(_ delta: Int, to index: Int) {
        guard index >= 0, index < places.count else { return }
        let place = places[index]
        blocks[place / Block.size].inFlight[place % Block.size].wrappingAdd(delta, ordering: .relaxed)
    }

    /// Requests in flight on this node; 0 for an index that is none.
    package func inFlight(_ index: Int) -> Int {
        guard index >= 0, index < places.count else { return 0 }
        let place = places[index]
        return blocks[place / Block.size].inFlight[place % Block.size].load(ordering: .relaxed)
    }

    /// The number that the next pick of the rotation gets.
    var currentTurn: UInt64 { rotation.load(ordering: .relaxed) }

    /// Requests in flight on all nodes, as far as is known.
    @inline(__always)
    func load(_ index: Int) -> Int { inFlight(index) + elsewhere(index) }

    package func elsewhere(_ index: Int) -> Int {
        guard index >= 0, index < places.count else { return 0 }
        let place = places[index]
        return blocks[place / Block.size].elsewhere[place % Block.size].load(ordering: .relaxed)
    }

    /// What the other nodes have in flight there now.
    package func setElsewhere(_ count: Int, of index: Int) {
        guard index >= 0, index < places.count else { return }
        let place = places[index]
        blocks[place / Block.size].elsewhere[place % Block.size].store(max(0, count), ordering: .relaxed)
    }

    func draw() -> UInt64 { draws.wrappingAdd(1, ordering: .relaxed).oldValue }

    /// The next number of the rotation; each is given once.
    @inline(__always)
    func turn() -> UInt64 { rotation.wrappingAdd(1, ordering: .relaxed).oldValue }
}
