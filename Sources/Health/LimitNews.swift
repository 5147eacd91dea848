// Whose limits are near their bound, and who is refused: told by each node to a node that somebody watches. For people to
// read; nothing is decided by it. Nothing of it is kept in Redis, and nobody tells anything while nobody asks.

package import Membership

package struct LimitNews: Hashable, Sendable {
    /// Who is watched says its name here, and hears the others on a channel of its own.
    package static let channel = "sluice:limits"
    package static func answers(to node: NodeID) -> String { "\(channel):\(node)" }

    /// A subject of a policy and how much of its limit it has used.
    package struct Use: Hashable, Codable, Sendable {
        package var policy: String
        /// Whose limit it is, where tiers have their own.
        package var tier: String?
        package var subject: String
        package var used: Int
        package var limit: Int
        /// `nil` where requests at once are counted.
        package var window: String?

        package init(policy: String, tier: String?, subject: String, used: Int, limit: Int, window: String?) {
            self.policy = policy
            self.tier = tier
            self.subject = subject
            self.used = used
            self.limit = limit
            self.window = window
        }
    }

    /// A client and how often a policy has refused it lately.
    package struct Refusal: Hashable, Codable, Sendable {
        package var policy: String
        package var subject: String
        package var count: Int

        package init(policy: String, subject: String, count: Int) {
            self.policy = policy
            self.subject = subject
            self.count = count
        }
    }

    package var node: NodeID
    package var uses: [Use]
    package var refusals: [Refusal]

    /// Of each list; what a person can take in.
    package static let rowsMax = 16
    /// All texts at their bounds, twice.
    private static let jsonBytesMax = 32 << 10
    /// A name of a policy, a header and its value.
    private static let textBytesMax = 256
    /// What JavaScript still counts exactly.
    private static let countMax = 1 << 53

    package init(node: NodeID, uses: [Use], refusals: [Refusal]) {
        self.node = node
        self.uses = uses
        self.refusals = refusals
    }

    private struct Wire: Codable {
        var node: String
        var uses: [Use]
        var refusals: [Refusal]
    }

    package var json: String { WireJSON.text(Wire(node: node.text, uses: uses, refusals: refusals)) }

    package init(json bytes: [UInt8]) throws(HealthFormatError) {
        let wire: Wire = try WireJSON.read(bytes, bytesMax: Self.jsonBytesMax)
        node = try WireJSON.node(wire.node)
        uses = Array(wire.uses.prefix(Self.rowsMax))
        refusals = Array(wire.refusals.prefix(Self.rowsMax))
        let texts = uses.flatMap { [$0.policy, $0.subject, $0.tier ?? "", $0.window ?? ""] }
        let counts = uses.flatMap { [$0.used, $0.limit] } + refusals.map(\.count)
        guard (texts + refusals.flatMap { [$0.policy, $0.subject] }).allSatisfy(Self.isPlain),
            counts.allSatisfy({ (0...Self.countMax).contains($0) })
        else { throw .malformed }
    }

    private static func isPlain(_ text: String) -> Bool {
        text.utf8.count <= textBytesMax && text.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7f }
    }
}

extension LimitNews {
    /// What all nodes say together: a subject that several have let in has used the sum, those nearest to their bound
    /// come first, and so do those refused most.
    ///
    /// - Parameter isKept: whether the limits are kept in common. What nodes remember lasts a round trip longer than what
    ///   counts, and they look a message's way apart: what exceeds a limit then is of two moments, and never was.
    package static func merged(
        _ all: [LimitNews], atMost countMax: Int, isKept: Bool
    ) -> (uses: [Use], refusals: [Refusal]) {
        var uses: [Use: Int] = [:]
        var refusals: [Refusal: Int] = [:]
        for news in all {
            for var use in news.uses {
                let used = use.used
                use.used = 0
                uses[use, default: 0] += used
            }
            for var refusal in news.refusals {
                let count = refusal.count
                refusal.count = 0
                refusals[refusal, default: 0] += count
            }
        }
        func share(_ use: Use) -> Double { Double(use.used) / Double(max(1, use.limit)) }
        let mostUsed = uses.map { use, used in
            var use = use
            use.used = isKept ? min(used, use.limit) : used
            return use
        }.sorted { (share($0), $1.subject) > (share($1), $0.subject) }
        let mostRefused = refusals.map { refusal, count in
            var refusal = refusal
            refusal.count = count
            return refusal
        }.sorted { ($0.count, $1.subject) > ($1.count, $0.subject) }
        return (Array(mostUsed.prefix(countMax)), Array(mostRefused.prefix(countMax)))
    }
}
