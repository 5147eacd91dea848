// Which question a reply answers: strictly the oldest open one. What does not fit is an error that closes the
// connection, so an answer can never reach another's question.

import Hiredis
import Primitives

/// One thing that was asked and not answered yet.
struct OpenQuestion {
    enum Question: Equatable {
        case handshake(HandshakeStep)
        case command
        /// `MULTI`, so many commands, `EXEC`.
        case transaction(commands: Int)
        /// The first part of a transaction that several share: so many parts, and commands in all. The other parts follow.
        case shared(parts: Int, commands: Int, own: Int)
        /// Another part of it, with so many commands, the one counted that all have in common.
        case part(commands: Int)
        /// The confirmation of a channel.
        case subscription
        /// Whether a connection on which only messages come is still there.
        case ping
    }

    enum HandshakeStep: Equatable { case login, optional, role, time }

    var question: Question
    var requester: (any RedisRequester)?
    var token: UInt64
    var sentAt: MonotonicTime
}

struct ReplyMatcher {
    enum Step {
        /// A part of a transaction's answer.
        case partial
        /// The reply at hand is the answer.
        case answered(OpenQuestion)
        /// The server refused: its own words.
        case refused(OpenQuestion, String)
        /// The reply at hand answers a transaction that several share; `takePart` says whose its parts are.
        case answeredInParts
        /// The same where the server refused it.
        case refusedInParts(String)
        /// `MULTI` was refused, and what followed ran by itself: the server's own words for `MULTI`.
        case ranAlone(String)
        /// Nothing was asked: a message on a channel.
        case unasked
    }

    private var open: [OpenQuestion] = []
    private var first = 0
    /// Replies of the transaction in front that have come: to `MULTI`, then to each command.
    private var stage = 0
    /// The first error among them; `EXEC` then only says `EXECABORT`.
    private var refusal: String?
    /// It was `MULTI` that was refused.
    private var wasNeverBegun = false
    /// Of the transaction that was answered last.
    private var partsToTake = 0

    private static let ok = Array("OK".utf8)
    private static let queued = Array("QUEUED".utf8)

    /// Answers that are still to come.
    var count: Int { open.count - first }

    mutating func expect(_ question: OpenQuestion) { open.append(question) }

    /// The last so many questions, each a transaction, are parts of one: what they begin with stands there once, and once
    /// more at its end.
    mutating func share(parts: Int) {
        let start = open.count - parts
        guard parts > 1, start >= first else { return }
        var (own, total) = (0, 2)
        for index in start..<open.count {
            guard case .transaction(let commands) = open[index].question else {
                preconditionFailure("not a transaction")
            }
            if index == start { own = commands } else { open[index].question = .part(commands: commands) }
            total += commands - 1
        }
        open[start].question = .shared(parts: parts, commands: total, own: own)
    }

    /// The next part of the transaction that was answered, and its commands; `nil` where none is left.
    mutating func takePart() -> (asked: OpenQuestion, commands: Int)? {
        guard first < open.count, partsToTake > 0 else { return nil }
        partsToTake -= 1
        switch open[first].question {
        case .shared(_, _, let commands), .part(let commands): return (pop(), commands)
        case .handshake, .command, .transaction, .subscription, .ping: preconditionFailure("a part is missing")
        }
    }

    /// Gives up on all of them.
    mutating func removeAll() -> ArraySlice<OpenQuestion> {
        let left = open[first...]
        open = []
        first = 0
        stage = 0
        refusal = nil
        wasNeverBegun = false
        partsToTake = 0
        return left
    }

    /// Passes over what acknowledges the transaction in front, where it stands there in the usual words.
    ///
    /// Nearly every transaction is acknowledged in them, and reading them one by one is most of what its answer costs. What
    /// differs by a byte, or has not wholly arrived, is left to be read like anything else; of a long transaction the
    /// server sends them in pieces.
    mutating func skipAcknowledgements(in reader: inout ReplyReader) {
        guard first < open.count else { return }
        let commands: Int
        switch open[first].question {
        case .transaction(let own): commands = own
        case .shared(_, let all, _): commands = all
        case .handshake, .command, .part, .subscription, .ping: return
        }
        if stage == 0 { stage = reader.skip(Self.begun.span, unit: Self.begun.count) }
        while stage > 0, stage <= commands {
            let left = min(commands - stage + 1, Self.queuedMax)
            let passed = reader.skip(
                Self.allQueued.span.extracting(0..<left * Self.queuedLength), unit: Self.queuedLength)
            stage += passed
            if passed < left { return }
        }
    }

    /// What acknowledges `MULTI`, and so many commands.
    private static let begun = Array("+OK\r\n".utf8)
    private static let allQueued = Array(String(repeating: "+QUEUED\r\n", count: queuedMax).utf8)
    private static let queuedLength = 9
    private static let queuedMax = 64

    /// Finds out what a reply means.
    mutating func take(_ reply: Reply) throws(RedisProtocolError) -> Step {
        guard first < open.count else { return .unasked }
        switch open[first].question {
        case .handshake, .command:
            let question = pop()
            return reply.kind(0) == .error ? .refused(question, reply.text(0)) : .answered(question)
        case .subscription:
            // Messages may come between the confirmations of two channels.
            if Self.isMessage(reply) { return .unasked }
            let question = pop()
            if reply.kind(0) == .error { return .refused(question, reply.text(0)) }
            guard reply.elementCount(0) == 3, reply.text(1) == "subscribe" else {
                throw .outOfStep("a subscription was not confirmed")
            }
            return .answered(question)
        case .ping:
            if Self.isMessage(reply) { return .unasked }
            if reply.kind(0) == .error { return .refused(pop(), reply.text(0)) }
            guard reply.elementCount(0) == 2, reply.text(1) == "pong" else {
                throw .outOfStep("a PING was not answered by a pong")
            }
            return .answered(pop())
        case .transaction(let commands): return try transaction(commands, reply)
        case .shared(let parts, let commands, _):
            return try transaction(commands, reply, parts: parts)
        case .part: throw .outOfStep("a part of a transaction without its first")
        }
    }

    private mutating func transaction(
        _ commands: Int, _ reply: Reply, parts: Int = 0
    ) throws(RedisProtocolError) -> Step {
        if stage <= commands {
            if !reply.isStatus(stage == 0 ? Self.ok : Self.queued) {
                guard reply.kind(0) == .error else {
                    if wasNeverBegun, let refusal { return .ranAlone(refusal) }
                    throw .outOfStep("a command of a transaction was not queued")
                }
                if stage == 0 { wasNeverBegun = true }
                if refusal == nil { refusal = reply.text(0) }
            }
            stage += 1
            return .partial
        }
        let refusal = self.refusal
        self.refusal = nil
        wasNeverBegun = false
        stage = 0
        partsToTake = parts
        switch reply.kind(0) {
        case .error where parts > 0: return .refusedInParts(refusal ?? reply.text(0))
        case .error: return .refused(pop(), refusal ?? reply.text(0))
        case .array where refusal == nil && reply.elementCount(0) == commands:
            return parts > 0 ? .answeredInParts : .answered(pop())
        case .array, .status, .integer, .bulk, .null: throw .outOfStep("EXEC did not answer for each command")
        }
    }

    /// Whether what has come of a reply that is too large begins as the answer in front has to: a list of many values to a
    /// command, or to a transaction what each of its commands gave.
    func mayAnswer(_ part: Reply, _ error: RedisProtocolError) -> Bool {
        guard first < open.count else { return false }
        switch open[first].question {
        case .command: return part.count > 0 ? part.kind(0) == .array : error.isOfValues
        case .transaction(let commands), .shared(_, let commands, _):
            return stage > commands && refusal == nil && part.elementCount(0) == commands
        case .handshake, .part, .subscription, .ping: return false
        }
    }

    /// Whether this is a message on a channel.
    static func isMessage(_ reply: Reply) -> Bool {
        reply.elementCount(0) == 3 && reply.count == 4 && reply.text(1) == "message"
    }

    private mutating func pop() -> OpenQuestion {
        let question = open[first]
        // The requester must not be kept alive by a reply that has come.
        open[first].requester = nil
        first += 1
        if first == open.count {
            open.removeAll(keepingCapacity: true)
            first = 0
        } else if first > 1024, first * 2 > open.count {
            open.removeFirst(first)
            first = 0
        }
        return question
    }
}
