package import Identity
import Primitives

/// A bounded table from subjects to small values: open addressing with linear probing, so that a look-up touches one
/// or two cache lines and allocates nothing.
///
/// Give it values without references: they are moved about.
package struct SubjectTable<State> {
    private var keys: [SubjectKey?]
    private var states: [State?]
    package private(set) var count = 0
    private let seed: UInt64
    private let countMax: Int
    private var hand = 0

    /// - Parameters:
    ///   - countMax: subjects held at the most.
    ///   - seed: secret, so that clients cannot aim at one slot.
    package init(countMax: Int, seed: UInt64) {
        self.countMax = countMax
        self.seed = seed
        keys = Array(repeating: nil, count: 16)
        states = Array(repeating: nil, count: 16)
    }

    private func home(_ key: SubjectKey) -> Int { Int(truncatingIfNeeded: key.hash(seed: seed)) & (keys.count - 1) }

    /// The place of a subject. Valid until the next insertion or removal.
    package func find(_ key: SubjectKey) -> Int? {
        var slot = home(key)
        while let held = keys[slot] {
            if held == key { return slot }
            slot = (slot + 1) & (keys.count - 1)
        }
        return nil
    }

    /// The state at the place of a subject.
    package subscript(place: Int) -> State {
        _read { yield states[place]! }
        _modify { yield &states[place]! }
    }

    package var bytes: Int {
        keys.capacity * MemoryLayout<SubjectKey?>.stride + states.capacity * MemoryLayout<State?>.stride
    }

    package var isFull: Bool { count >= countMax }

    /// Adds a subject that is not there; `nil` where the table is full.
    package mutating func insert(_ key: SubjectKey, _ state: State) -> Int? {
        guard !isFull else { return nil }
        // At most half full, so that searches stay short.
        if (count + 1) * 2 > keys.count { grow() }
        var slot = home(key)
        while keys[slot] != nil { slot = (slot + 1) & (keys.count - 1) }
        keys[slot] = key
        states[slot] = state
        count += 1
        return slot
    }

    private mutating func grow() {
        let oldKeys = keys
        let oldStates = states
        keys = Array(repeating: nil, count: oldKeys.count * 2)
        states = Array(repeating: nil, count: oldKeys.count * 2)
        for (index, key) in oldKeys.enumerated() {
            guard let key else { continue }
            var slot = home(key)
            while keys[slot] != nil { slot = (slot + 1) & (keys.count - 1) }
            keys[slot] = key
            states[slot] = oldStates[index]
        }
    }

    package func visit(_ body: (SubjectKey, State) -> Void) {
        for (key, state) in zip(keys, states) { if let key, let state { body(key, state) } }
    }

    package mutating func remove(_ key: SubjectKey) {
        if let place = find(key) { remove(at: place) }
    }

    /// Removes by moving back what followed, so that no search is cut short and no tombstones pile up.
    private mutating func remove(at place: Int) {
        let mask = keys.count - 1
        var hole = place
        keys[hole] = nil
        states[hole] = nil
        count -= 1
        var slot = (hole + 1) & mask
        while let key = keys[slot] {
            let wanted = home(key)
            if (slot - wanted) & mask >= (slot - hole) & mask {
                keys[hole] = key
                states[hole] = states[slot]
                keys[slot] = nil
                states[slot] = nil
                hole = slot
            }
            slot = (slot + 1) & mask
        }
    }

    /// Looks at the next slot, and takes out what it holds if that is idle. One step with each call keeps the table
    /// clean: nobody ever waits for a sweep of the whole.
    package mutating func sweep(_ isIdle: (State) -> Bool) -> State? {
        hand = (hand + 1) & (keys.count - 1)
        guard let state = states[hand], isIdle(state) else { return nil }
        remove(at: hand)
        return state
    }

    /// Takes out the next subject, whoever it is: room for another where all are active. A secret hash has placed them,
    /// so it is a random one.
    package mutating func evict() -> State? {
        guard count > 0 else { return nil }
        while true {
            hand = (hand + 1) & (keys.count - 1)
            guard let state = states[hand] else { continue }
            remove(at: hand)
            return state
        }
    }
}

extension SubjectTable: Sendable where State: Sendable {}
