// `GET /api/backends` as it is written here and read by `sluice backends`. The names are stable.

import Gateway
import Health
import LinuxIO
import Membership
import Primitives

package struct BackendListing: Codable, Sendable {
    package var backends: [Row]
    /// How long news take from this node to the others; absent where there are none.
    package var news: News?

    package struct Row: Codable, Sendable {
        package var service: String
        package var url: String
        package var state: String
        /// Whether this node sends requests there.
        package var available: Bool
        package var since: String
        package var reason: String
        /// Who has made it what it is: an operator, or the nodes that judge it down; empty where nobody speaks of it.
        package var saidBy: [String]
        package var votes: [String: String]
        /// An operator's word that stands above the evidence.
        package var `operator`: Word?
        package var lastError: String?
        /// Requests of this node that are under way there.
        package var inFlight: Int?
        /// The same of all nodes, where they tell each other.
        package var clusterInFlight: Int?
        /// Its circuit breaker: `closed`, `open`, `half-open`.
        package var breaker: String
        /// How often what it is to this node has changed since the start.
        package var changes: UInt64?

        /// What can be told without a node.
        package init(
            service: String, url: String, state: String, available: Bool, since: String, reason: String,
            saidBy: [String], votes: [String: String], operator word: Word?, breaker: String
        ) {
            self.service = service
            self.url = url
            self.state = state
            self.available = available
            self.since = since
            self.reason = reason
            self.saidBy = saidBy
            self.votes = votes
            self.operator = word
            self.breaker = breaker
        }
    }

    package struct Word: Codable, Sendable {
        package var word: String
        package var by: String
        package var at: String

        package init(word: String, by: String, at: String) {
            self.word = word
            self.by = by
            self.at = at
        }
    }

    package struct News: Codable, Sendable {
        package var measured: Int
        package var lastMicroseconds: Int64
        package var longestMicroseconds: Int64
        package var meanMicroseconds: Int64
    }
}

extension BackendListing {
    package init(backends: [Row]) { self.backends = backends }

    init(_ control: Control) {
        backends = control.backendRows.map { Row($0) }
        news = control.newsDelay.map { delay in
            News(
                measured: delay.count, lastMicroseconds: delay.last.microseconds,
                longestMicroseconds: delay.longest.microseconds,
                meanMicroseconds: delay.total.microseconds / Int64(max(1, delay.count)))
        }
    }
}

extension BackendListing.Row {
    init(_ row: BackendRow) {
        let status = row.status
        self.init(
            service: status.backend.service, url: status.backend.url, state: status.state.rawValue,
            available: status.isAvailable,
            since: SystemClock.timestamp(microseconds: saturatingMultiply(status.since.milliseconds, 1_000)),
            reason: status.reason,
            saidBy: status.word.map { [$0.by] } ?? status.votes.filter { $0.vote == .down }.map(\.node.text),
            votes: Dictionary(uniqueKeysWithValues: status.votes.map { ($0.node.text, $0.vote.rawValue) }),
            operator: status.word.map { word in
                BackendListing.Word(
                    word: word.word.rawValue, by: word.by,
                    at: SystemClock.timestamp(microseconds: saturatingMultiply(word.at.milliseconds, 1_000)))
            },
            breaker: row.breaker.rawValue)
        lastError = status.lastFailure?.description
        inFlight = row.inFlight
        clusterInFlight = row.clusterInFlight
        changes = status.changes
    }
}
