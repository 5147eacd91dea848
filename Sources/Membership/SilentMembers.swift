// Who announces itself no more and has not said goodbye: a node that is dead, or one that runs and is cut off from Redis.
// From Redis alone nobody can tell. So those who have Redis ask it for a connection where its clients find it: who takes
// one and ends it when it is ended runs. No byte is said over it, and nothing follows from it but what is written here.
//
// A connection that is refused comes from the host of a node whose process has ended: that is sure, until it announces
// itself again. Silence may be a lost packet or a full queue: it takes three in a row to give up one that had answered, and
// who never did is asked again, later and later apart.
// Rejected: a word between the nodes that says who answers, which would be a protocol; docs/decisions/cut-off.md.

package import Primitives

/// A member that is to be asked for a connection.
package struct SilenceQuestion: Hashable, Sendable {
    package var id: NodeID
    package var target: SocketAddress
    /// Its last word before.
    package var lastSeen: RedisTime

    package init(id: NodeID, target: SocketAddress, lastSeen: RedisTime) {
        self.id = id
        self.target = target
        self.lastSeen = lastSeen
    }
}

/// How the attempt at a connection ended.
package enum SilenceAnswer: Hashable, Sendable {
    /// And ended by the process, when it was ended from here.
    case connected
    /// By the host: no process listens there.
    case refused
    /// In time, or at all.
    case none
}

package struct SilentMembers: Sendable {
    private struct Silence: Sendable {
        var lastSeen: RedisTime
        /// Nodes that ran when it fell silent, among which it divides a limit; `nil` where nobody here saw that.
        var sharers: Int?
        var hasAnswered = false
        var isDead = false
        /// Questions without an answer since the last one with.
        var missed = 0
        var isAsked = false
        var nextAt: MonotonicTime
    }

    /// How many heartbeats a member has missed when it is asked: the answer is there when it counts as gone.
    package static let beatsMissed: Int64 = 2
    /// Who has answered before is given up after so many questions in a row without an answer.
    package static let missedMax = 3
    /// Who does not answer so often is asked more seldom.
    package static let missedOften = 10
    package static let seldom = TimeSpan.seconds(10)
    /// Questions under way at once.
    package static let askedMax = 16

    private var silences: [NodeID: Silence] = [:]
    private var asked = 0

    init() {}

    func isCutOff(_ id: NodeID) -> Bool {
        guard let silence = silences[id] else { return false }
        return silence.hasAnswered && !silence.isDead
    }

    /// Among how many nodes it divides a limit, where that is known.
    func sharers(_ id: NodeID) -> Int? { silences[id]?.sharers }

    /// Takes in who has been silent for so long that it is asked, and who is not any more.
    ///
    /// - Parameters:
    ///   - running: who ran until now.
    mutating func update(
        _ silent: [(id: NodeID, lastSeen: RedisTime)], running: Set<NodeID>, at now: MonotonicTime
    ) {
        let before = silences
        silences = [:]
        for (id, lastSeen) in silent {
            if let known = before[id], known.lastSeen == lastSeen {
                silences[id] = known
            } else {
                if before[id]?.isAsked == true { asked -= 1 }
                silences[id] = Silence(
                    lastSeen: lastSeen, sharers: running.contains(id) ? running.count : nil, nextAt: now)
            }
        }
        for (id, silence) in before where silences[id] == nil && silence.isAsked { asked -= 1 }
    }

    /// Whom to ask now.
    mutating func questions(
        _ targets: [NodeID: SocketAddress], every pause: TimeSpan, at now: MonotonicTime
    ) -> [SilenceQuestion] {
        var questions: [SilenceQuestion] = []
        // Who has waited longest comes first, so that many dead ones keep nobody from being asked.
        for (id, silence) in silences.sorted(by: { ($0.value.nextAt, $0.key) < ($1.value.nextAt, $1.key) }) {
            guard asked < Self.askedMax else { break }
            guard let target = targets[id], !silence.isAsked, !silence.isDead, silence.nextAt <= now else { continue }
            silences[id]?.isAsked = true
            // A little less than a pause: the next heartbeat comes about one from now.
            silences[id]?.nextAt = now + (silence.missed >= Self.missedOften ? Self.seldom : pause / 2)
            asked += 1
            questions.append(SilenceQuestion(id: id, target: target, lastSeen: silence.lastSeen))
        }
        return questions
    }

    mutating func answered(_ question: SilenceQuestion, _ answer: SilenceAnswer) {
        guard var silence = silences[question.id], silence.lastSeen == question.lastSeen, silence.isAsked else {
            return
        }
        asked -= 1
        silence.isAsked = false
        switch answer {
        case .connected:
            silence.hasAnswered = true
            silence.missed = 0
        case .refused:
            silence.isDead = true
            silence.hasAnswered = false
        case .none:
            silence.missed += 1
            if silence.missed >= Self.missedMax { silence.hasAnswered = false }
        }
        silences[question.id] = silence
    }
}
