import Membership
import Primitives

/// How a proposal of a configuration stands.
package struct Rollout: Sendable {
    package enum State: String, Sendable {
        case idle, proposing, voting, switching, switched, refused
        /// All had agreed, and Redis has not answered: it may or may not be in force. What became of it takes the place of
        /// this when Redis tells it.
        case unknown
        /// Between the wish and its end.
        package var isUnderWay: Bool { self == .proposing || self == .voting || self == .switching }
    }
    package var ticket = 0
    package var state = State.idle
    package var version = 0
    /// What each node has said: `ok`, or what is wrong.
    package var votes: [String: String] = [:]
    /// Who has switched.
    package var inForce: [String] = []
    /// Why it is refused or nobody knows, or who has agreed and not switched in time.
    package var errors: [String] = []
}

/// A version that all had agreed to, whose last write got no answer.
struct Unsettled {
    let version: ConfigurationVersion
    /// Since when Redis has said that something else is in force.
    var contradictedSince: MonotonicTime?
    /// It was told that it is not in force.
    var isGivenUp = false

    init(_ version: ConfigurationVersion) { self.version = version }

    enum Outcome {
        case inForce
        /// Another came behind it.
        case overtaken
        case notInForce
    }

    /// What follows from the version that is in force now; `nil` where that is not certain yet, or nothing new.
    mutating func outcome(current: Int, at now: MonotonicTime) -> Outcome? {
        if current == version.version { return .inForce }
        if current > version.version { return .overtaken }
        guard !isGivenUp else { return nil }
        let since = contradictedSince ?? now
        contradictedSince = since
        guard now - since >= Self.patience else { return nil }
        isGivenUp = true
        return .notInForce
    }

    /// The write may still be on its way, on a connection that this node has given up.
    static let patience = TimeSpan.seconds(5)
}
