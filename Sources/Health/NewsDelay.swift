// How long news take from one node to the others, as a node finds by hearing itself: what it publishes comes back to it by
// the same way on which the others hear it, and one clock measures both ends.

package import Primitives

package struct NewsDelay: Sendable {
    /// How many were measured.
    package private(set) var count = 0
    package private(set) var last = TimeSpan.zero
    package private(set) var longest = TimeSpan.zero
    package private(set) var total = TimeSpan.zero
    /// What was said last on a channel and is not back.
    private var underWay: [String: MonotonicTime] = [:]

    package init() {}

    /// Messages of one channel keep their order: of several that are under way the first is measured.
    package mutating func said(_ channel: String, at now: MonotonicTime) {
        if underWay[channel] == nil { underWay[channel] = now }
    }

    package mutating func heard(_ channel: String, at now: MonotonicTime) {
        guard let start = underWay.removeValue(forKey: channel) else { return }
        count += 1
        last = max(.zero, now - start)
        longest = max(longest, last)
        total = total + last
    }

    /// What is under way may be lost.
    package mutating func interrupted() { underWay = [:] }
}
