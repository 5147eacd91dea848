// Which backend is next. A snapshot is made whenever the set of usable backends changes and is then immutable, so that
// a pick takes no lock: rotation is one atomic counter into a schedule that was worked out beforehand.

import Primitives
import Synchronization

package enum BalancingStrategy: Sendable, Equatable {
    case roundRobin
    case weightedRoundRobin
    case leastConnections
    case consistentHash
}

/// One usable backend.
package struct BalancerMember: Sendable, Equatable {
    /// Its place in the service's list.
    package let index: Int
    /// 1...65,535.
    package let weight: Int
    /// What consistent hashing knows it by: its URL, so that its keys stay with it wherever it stands in a list.
    package let identity: UInt64

    package init(index: Int, weight: Int, url: String) {
        self.index = index
        self.weight = max(1, min(weight, Self.weightMax))
        identity = stableHash(url)
    }

    package static let weightMax = 65_535
}

/// The usable backends of one service and the order in which they are picked.
package final class BalancerSnapshot: Sendable {
    private let strategy: BalancingStrategy
    private let members: [BalancerMember]
    private let state: BalancerState
    /// Positions in `members`, in the order of one whole cycle.
    private let schedule: [UInt16]

    /// The longest cycle: the sum of the weights after division by their greatest common divisor. 128 KiB of schedule.
    package static let scheduleMax = 65_535

    package init(_ strategy: BalancingStrategy, members: [BalancerMember], state: BalancerState) {
        self.strategy = strategy
        self.members = members
        self.state = state
        switch strategy {
        case .weightedRoundRobin: schedule = Self.smoothSchedule(members.map(\.weight))
        case .roundRobin, .leastConnections, .consistentHash: schedule = members.indices.map { UInt16(clamping: $0) }
        }
    }

    package var isEmpty: Bool { members.isEmpty }

    /// nginx's smooth weighted round robin, run through one cycle: in each step every weight is added to its counter,
    /// the highest is picked, and the sum is taken from it. In every cycle each backend comes exactly as often as its
    /// weight says, spread as evenly as can be.
    static func smoothSchedule(_ weights: [Int]) -> [UInt16] {
        let divisor = weights.reduce(0) { greatestCommonDivisor($0, $1) }
        guard divisor > 0 else { return [] }
        var scaled = weights.map { $0 / divisor }
        while scaled.reduce(0, +) > scheduleMax { scaled = scaled.map { max(1, $0 / 2) } }
        let total = scaled.reduce(0, +)
        var current = Array(repeating: 0, count: scaled.count)
        var schedule: [UInt16] = []
        schedule.reserveCapacity(total)
        for _ in 0..<total {
            var best = 0
            for i in scaled.indices {
                current[i] += scaled[i]
                if current[i] > current[best] { best = i }
            }
            current[best] -= total
            schedule.append(UInt16(clamping: best))
        }
        return schedule
    }

    package static func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int {
        var (a, b) = (a, b)
        while b != 0 { (a, b) = (b, a % b) }
        return a
    }

    /// The place of the backend that takes the next request; `nil` where none may.
    /// - Parameters:
    ///   - hash: what consistent hashing goes by.
    ///   - excluding: a backend that has just failed, taken only where it is the last.
    package func pick(hash: UInt64, excluding: Int? = nil) -> Int? {
        guard !members.isEmpty else { return nil }
        if members.count == 1 { return members[0].index }
        switch strategy {
        case .roundRobin, .weightedRoundRobin: return rotate(excluding)
        case .leastConnections: return leastBusy(excluding)
        case .consistentHash: return highestScore(hash, excluding)
        }
    }

    private func rotate(_ excluding: Int?) -> Int {
        let turn = state.rotation.add(1, ordering: .relaxed).oldValue
        let start = Int(turn % UInt64(schedule.count))
        let first = members[Int(schedule[start])].index
        guard first == excluding else { return first }
        for step in 1..<schedule.count {
            let next = members[Int(schedule[(start + step) % schedule.count])].index
            if next != excluding { return next }
        }
        return first
    }

    /// The fewest requests in flight for its weight; equals take turns.
    private func leastBusy(_ excluding: Int?) -> Int {
        let start = Int(state.rotation.add(1, ordering: .relaxed).oldValue % UInt64(members.count))
        var best = -1
        var bestLoad = 0
        for step in 0..<members.count {
            let position = (start + step) % members.count
            let member = members[position]
            if member.index == excluding { continue }
            let load = state.inFlight(member.index)
            // load / weight < bestLoad / bestWeight, without division.
            if best < 0 || load * members[best].weight < bestLoad * member.weight {
                best = position
                bestLoad = load
            }
        }
        return members[max(best, 0)].index
    }

    /// Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights by -w / ln u). Every backend's score for a key
    /// depends on that backend alone, so when one of n goes, only its own keys move, about 1/n of all.
    private func highestScore(_ hash: UInt64, _ excluding: Int?) -> Int {
        var best = members[0].index
        var bestScore = -Double.infinity
        for member in members where member.index != excluding {
            let mixed = mix64(hash ^ member.identity)
            // (0, 1): the 53 bits that a Double holds, and a half so that neither end is met.
            let unit = (Double(mixed >> 11) + 0.5) * 0x1p-53
            let score = Double(member.weight) / -Self.logarithm(unit)
            if score > bestScore {
                bestScore = score
                best = member.index
            }
        }
        return best
    }

    /// The natural logarithm of a number in (0, 1), to about 1e-9: exponent and mantissa apart, the mantissa by the series
    /// of the inverse hyperbolic tangent. The same on every machine, which a library's need not be.
    static func logarithm(_ x: Double) -> Double {
        let m = x.significand
        // m in [1, 2) → t in [0, 1/3).
        let t = (m - 1) / (m + 1)
        let t2 = t * t
        var sum = 0.0
        var term = t
        var n = 1.0
        while n < 19 {
            sum += term / n
            term *= t2
            n += 2
        }
        return 2 * sum + Double(x.exponent) * 0.693_147_180_559_945_3
    }
}
