// What a node says of a configuration that was given to the cluster, and for how long whoever asked waits for its end.

import Gateway
package import Primitives

/// How a proposal stands, as `GET /api/config/rollout` tells it.
package struct RolloutStatus: Codable, Sendable {
    package var ticket: Int
    package var state: String
    package var version: Int
    package var votes: [String: String]
    package var inForce: [String]
    package var errors: [String]
}

extension RolloutStatus {
    init(_ rollout: Rollout) {
        self.init(
            ticket: rollout.ticket, state: rollout.state.rawValue, version: rollout.version, votes: rollout.votes,
            inForce: rollout.inForce, errors: rollout.errors)
    }
}

/// Waits for the end of a proposal, by asking the node that made it again and again.
package struct RolloutWait: Sendable {
    package enum Outcome: Sendable {
        /// Not everybody of the version's nodes may have switched: `errors` names who has not.
        case switched
        case refused
        /// All had agreed, and Redis has not said whether it is in force.
        case unknown
        /// The node has not said how it ended.
        case untold
    }

    private let ticket: Int
    private let end: MonotonicTime

    /// The vote takes ten seconds at the most, and so does the switch.
    package static let patience = TimeSpan.seconds(30)

    package init(for ticket: Int, since now: MonotonicTime) {
        self.ticket = ticket
        end = now + Self.patience
    }

    /// What has come of it, by what the node says at this moment; `nil` where it is to be asked again.
    package func outcome(_ status: RolloutStatus, at now: MonotonicTime) -> Outcome? {
        let state = status.ticket == ticket ? Rollout.State(rawValue: status.state) : nil
        return switch state {
        case .switched: .switched
        case .refused: .refused
        // What nobody knows now may be known in time: the node asks Redis as soon as that answers again.
        case .unknown: now >= end ? .unknown : nil
        case .idle, .proposing, .voting, .switching, nil: now >= end ? .untold : nil
        }
    }
}
