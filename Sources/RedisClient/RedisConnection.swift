// One connection to Redis on one loop: commands are pipelined, all of a turn leave in one write, and replies are matched
// to them strictly in order. It connects again by itself.
//
// hiredis's own connections were rejected: they would need an event loop of their own or an adapter to ours, and a
// write a command.

package import EventLoop
package import Hiredis
package import LinuxIO
package import Primitives
import TLS

/// Who asked. Called on the loop, once for each question.
package protocol RedisRequester: AnyObject {
    /// A command's reply, or what a transaction's `EXEC` gave: an array with one element for each command. `reply` holds
    /// only during the call. An element may still be an error.
    func redisReplied(_ reply: Reply, token: UInt64)
    func redisFailed(_ failure: RedisFailure, token: UInt64)
}

/// Who wants to know how the connection is. Called on the loop.
package protocol RedisObserver: AnyObject {
    /// Logged in. `sample` is the server's time and when it was asked and answered.
    func redisReady(_ connection: RedisConnection, sample: ServerTimeSample)
    /// No longer connected, or not yet; it tries again by itself. All open questions have failed before.
    func redisLost(_ connection: RedisConnection, _ failure: RedisFailure)
    /// All channels are subscribed: what is published from now on arrives.
    func redisSubscribed(_ connection: RedisConnection)
    /// A message on a channel this connection has subscribed to.
    func redisMessage(_ connection: RedisConnection, channel: String, payload: String)
    /// Where sentinels say where the server is: none lets us hear when that changes, so a connection stays until it fails
    /// or its server says that it is a replica. `nil`: what they say is heard again.
    func redisMovesUnheard(_ connection: RedisConnection, _ failure: RedisFailure?)
}

extension RedisObserver {
    package func redisMovesUnheard(_ connection: RedisConnection, _ failure: RedisFailure?) {}
}

/// One answer to `TIME`.
package struct ServerTimeSample: Equatable, Sendable {
    package var sentAt: MonotonicTime
    package var receivedAt: MonotonicTime
    package var time: RedisTime

    package init(sentAt: MonotonicTime, receivedAt: MonotonicTime, time: RedisTime) {
        self.sentAt = sentAt
        self.receivedAt = receivedAt
        self.time = time
    }

    /// The sample in a reply to `TIME` whose array stands at `index`.
    package init?(_ reply: Reply, at index: Int, sentAt: MonotonicTime, receivedAt: MonotonicTime) {
        guard reply.elementCount(index) == 2, let seconds = reply.integer(index + 1), seconds >= 0,
            let microseconds = reply.integer(index + 2), (0..<1_000_000).contains(microseconds)
        else { return nil }
        let time = RedisTime(microseconds: saturatingAdd(saturatingMultiply(seconds, 1_000_000), microseconds))
        self.init(sentAt: sentAt, receivedAt: receivedAt, time: time)
    }
}

package final class RedisConnection: StreamHandler, EndOfTurnHandler, WakeHandler {
    enum State {
        case resting, locating, resolving, connecting, handshaking, ready, closed
    }

    package let name: String
    let loop: Loop
    let resolver: Resolver
    package internal(set) var endpoint: RedisEndpoint
    let locator: (any RedisLocator)?
    let channels: [String]
    let silenceMax: TimeSpan
    weak var observer: (any RedisObserver)?
    /// Answers to `resolve`, with the number of the question: one that comes late must not be taken for another's.
    let resolved: Mailbox<(question: UInt64, answer: Resolver.Answer)>
    var resolutions: UInt64 = 0

    var state = State.resting
    var stream: Stream?
    /// This end, while it is connected by TCP.
    package var localAddress: SocketAddress? { stream?.localAddress }
    var addresses: [IPAddress] = []
    /// Which of the addresses comes next.
    var attempt = 0
    var retry: LoopTimer?
    private var keepalive: LoopTimer?
    var backoff: Backoff
    var readyAt = MonotonicTime(nanoseconds: 0)
    var lastFailure = RedisFailure.notConnected
    /// Whether the last attempt led to a server that logged us in.
    var wasReady = false
    /// Whether the server has said anything since it was greeted.
    var hasHeard = false
    /// An error that nobody had to heed, before the server has logged us in: the reason, if it ends the connection then.
    var lastWord: String?

    var writer = CommandWriter()
    var reader = ReplyReader()
    var matcher = ReplyMatcher()
    var input = ByteBuffer()
    /// Where there is TLS: the session, whether the server has proved itself, and scratch.
    var session: TLSSession?
    var isSecured = false
    var plain = ByteBuffer()
    var sealed = ByteBuffer()
    /// Memory of what is on its way, either way.
    package var bufferBytes: Int {
        input.capacity + writer.output.capacity + plain.capacity + sealed.capacity + (stream?.outputCapacity ?? 0)
    }
    private var flushAsked = false
    /// Commands written since `beginTransaction`; -1 outside.
    private var commandsInTransaction = -1
    /// Parts of the shared transaction that is being written.
    private var sharedParts = 0
    /// Where the command or transaction at hand begins in the output, so that it can be taken back; -1 between them.
    private var writtenFrom = -1

    /// Since the deadline was set: whether a question was answered, and how many bytes have come.
    private var hasAnswered = false
    private var bytesHeard = 0

    /// A server that answers nothing for so long with questions open is taken for gone, and connected to anew: a network
    /// that was cut would otherwise only be noticed by TCP's own retransmissions, seconds after it is whole again.
    package static let silenceDefault = TimeSpan.seconds(1)
    /// As good as an answer, of one that is large: a slow line brings it whole. What trickles is no answer.
    private static let pieceMin = 4 << 10
    private static let readSize = 64 << 10
    /// Parts of a shared transaction, which keep a server busy for half a millisecond. What follows is another.
    private static let partsMax = 64
    /// The same where they are long: as much as one request can say of all policies that cover it.
    private static let sharedBytesMax = 256 << 10
    private static let redirectionPause = TimeSpan.milliseconds(100)
    /// Bytes that the server has not taken. Beyond it, it has stopped reading.
    private static let pendingOutputMax = 32 << 20

    /// - Parameters:
    ///   - name: shown by `CLIENT LIST`; no spaces.
    ///   - channels: subscribed to as soon as the connection is up; such a connection takes no other commands.
    ///   - silenceMax: how long open questions may go without any answer.
    ///   - locator: who says where the server is; without one, the endpoint does.
    ///   - seed: for the jitter between attempts.
    package init(
        _ endpoint: RedisEndpoint, name: String, channels: [String] = [], silenceMax: TimeSpan = silenceDefault,
        locator: (any RedisLocator)? = nil, loop: Loop, resolver: Resolver, seed: UInt64,
        observer: any RedisObserver
    ) {
        self.endpoint = endpoint
        self.locator = locator
        self.name = name
        self.channels = channels
        self.silenceMax = silenceMax
        self.loop = loop
        self.resolver = resolver
        self.observer = observer
        backoff = Backoff(seed: seed)
        resolved = Mailbox(waker: loop.waker)
        loop.addWakeHandler(self)
    }

    package var isReady: Bool { state == .ready }

    /// The answers cannot be believed: everyone who still waits is told, and another connection is made.
    package func distrust(_ reason: String) {
        if state == .ready { lost(.malformed(reason)) }
    }

    /// Replies that are still to come.
    package var outstanding: Int { matcher.count }

    // MARK: Sending

    /// Writes the arguments of one command; `sendCommand` or `endTransaction` says whose it is.
    @inline(__always)
    package func write(_ body: (inout CommandWriter) -> Void) {
        markStart()
        body(&writer)
        writer.end()
        if commandsInTransaction >= 0 { commandsInTransaction += 1 }
    }

    /// The command just written is one of its own.
    package func sendCommand(_ requester: any RedisRequester, token: UInt64) {
        expect(.command, requester, token)
    }

    /// What is written from here to `endTransaction` is one `MULTI … EXEC`.
    package func beginTransaction() {
        markStart()
        writer.multi()
        commandsInTransaction = 0
    }

    package func endTransaction(_ requester: any RedisRequester, token: UInt64) {
        writer.exec()
        let commands = commandsInTransaction
        commandsInTransaction = -1
        expect(.transaction(commands: commands), requester, token)
    }

    /// Writes a transaction of `commands` commands at once: `body` ends each of them.
    @inline(__always)
    package func transaction(
        commands: Int, _ requester: any RedisRequester, token: UInt64, _ body: (inout CommandWriter) -> Void
    ) {
        beginTransaction()
        body(&writer)
        commandsInTransaction = commands
        endTransaction(requester, token: token)
    }

    /// Writes a part of a transaction that several requesters share: `MULTI`, `TIME`, what the parts say, `TIME`, `EXEC`.
    /// Each is answered as by a transaction of its own that begins and ends with `TIME`; a part that is alone in it, by one
    /// that begins with it.
    ///
    /// - Parameters:
    ///   - commands: of the part, `TIME` included.
    ///   - body: writes and ends all of them but `TIME`.
    @inline(__always)
    package func part(
        commands: Int, _ requester: any RedisRequester, token: UInt64, _ body: (inout CommandWriter) -> Void
    ) {
        let isFull = sharedParts >= Self.partsMax || writer.output.count - writtenFrom > Self.sharedBytesMax
        if sharedParts > 0, isFull { endShared() }
        guard state == .ready else {
            requester.redisFailed(.notConnected, token: token)
            return
        }
        if sharedParts == 0 {
            markStart()
            writer.multi()
            writer.time()
        }
        body(&writer)
        sharedParts += 1
        let question = OpenQuestion.Question.transaction(commands: commands)
        matcher.expect(OpenQuestion(question: question, requester: requester, token: token, sentAt: loop.now))
    }

    /// Ends the shared transaction, if there is one.
    package func endShared() {
        guard sharedParts > 0 else { return }
        if sharedParts > 1 { writer.time() }
        writer.exec()
        writtenFrom = -1
        matcher.share(parts: sharedParts)
        sharedParts = 0
        askFlush()
    }

    /// On a cluster: what is sent next is for a slot that is only just moving to this server.
    package func asking() {
        guard state == .ready else { return }
        writer.add("ASKING")
        ask(.handshake(.optional))
    }

    private func markStart() {
        if writtenFrom < 0 { writtenFrom = writer.output.count }
    }

    private func expect(_ question: OpenQuestion.Question, _ requester: any RedisRequester, _ token: UInt64) {
        let start = writtenFrom
        writtenFrom = -1
        guard state == .ready else {
            if start >= 0 { writer.output.truncate(to: start) }
            requester.redisFailed(.notConnected, token: token)
            return
        }
        matcher.expect(OpenQuestion(question: question, requester: requester, token: token, sentAt: loop.now))
        askFlush()
    }

    /// Nothing is asked on a connection that only listens, so a peer that is gone without a word would never be noticed.
    func keepAlive() {
        let timer = keepalive ?? LoopTimer(loop) { [weak self] in self?.keepAlive() }
        keepalive = timer
        timer.schedule(after: silenceMax / 2)
        guard state == .ready, matcher.count == 0 else { return }
        writer.add("PING")
        ask(.ping)
    }

    /// Sends what has been written as the connection's own question.
    func ask(_ question: OpenQuestion.Question, count: Int = 1) {
        writer.end()
        for _ in 0..<count {
            matcher.expect(OpenQuestion(question: question, requester: nil, token: 0, sentAt: loop.now))
        }
        askFlush()
    }

    private func askFlush() {
        guard !flushAsked else { return }
        flushAsked = true
        loop.atEndOfTurn(self)
    }

    package func turnEnded() {
        flushAsked = false
        guard let stream, !writer.output.isEmpty else { return }
        let outcome: IOOutcome
        if let session { outcome = seal(session, writer.output) } else { outcome = send(writer.output, stream) }
        writer.output.clear()
        if case .failed(let error) = outcome {
            broken(stream, error)
            return
        }
        if stream.pendingOutput > Self.pendingOutputMax {
            lost(.silent("the server has stopped reading"))
            return
        }
        if stream.deadline == .distantFuture { stream.deadline = loop.now + silenceMax }
    }

    func send(_ output: borrowing ByteBuffer, _ stream: Stream) -> IOOutcome { stream.send(output.bytes) }

    // MARK: Receiving

    package func streamReadable(_ stream: Stream) {
        while stream.mayHaveBytes, self.stream === stream {
            if !read(stream) { return }
        }
    }

    /// It cannot be written to any more: what the server has said before says more than the error does.
    private func broken(_ stream: Stream, _ error: SystemError) {
        while self.stream === stream, read(stream) {}
        if self.stream === stream { lost(.lost(error.reason)) }
    }

    /// Whether something was read.
    private func read(_ stream: Stream) -> Bool {
        input.clear()
        switch stream.receive(into: &input, room: Self.readSize) {
        case .bytes(let count):
            // Replies are timed from here: what arrived after the turn began must not look older than it is.
            loop.updateTime()
            bytesHeard += count
            if let session {
                unseal(session, of: stream)
            } else if isTLS(input) {
                lost(.unanswered("the server answers in TLS"))
            } else {
                hasHeard = true
                feed(input)
                takeReplies(of: stream)
            }
            if self.stream === stream { moveDeadline(of: stream) }
            return true
        case .wouldBlock: break
        case .endOfFile: lost(.lost("the server closed the connection"))
        case .failed(let error): lost(.lost(error.reason))
        }
        return false
    }

    func feed(_ buffer: borrowing ByteBuffer) { reader.feed(buffer.bytes) }

    /// Whether what comes first is an alert of TLS (RFC 8446 §5.1), by which a server complains of plain text.
    private func isTLS(_ buffer: borrowing ByteBuffer) -> Bool {
        !hasHeard && buffer.count >= 2 && buffer.bytes[0] == 0x15 && buffer.bytes[1] == 0x03
    }

    /// Bytes alone do not move it: a server or a network that lets them trickle answers nobody.
    private func moveDeadline(of stream: Stream) {
        guard state == .ready else { return }
        if matcher.count == 0 {
            stream.deadline = .distantFuture
        } else if hasAnswered || bytesHeard >= Self.pieceMin {
            stream.deadline = loop.now + silenceMax
        } else {
            return
        }
        hasAnswered = false
        bytesHeard = 0
    }

    func takeReplies(of stream: Stream) {
        do throws(RedisProtocolError) {
            // What a reply leads to may close this connection.
            while self.stream === stream {
                matcher.skipAcknowledgements(in: &reader)
                guard try reader.next() else { break }
                try taken(reader.reply)
            }
        } catch {
            let isAnswer = error.isOfSize && matcher.mayAnswer(reader.reply, error)
            lost(isAnswer ? .tooLarge(error.description) : .malformed(error.description))
        }
    }

    private func taken(_ reply: Reply) throws(RedisProtocolError) {
        let open = matcher.count
        let step = try matcher.take(reply)
        if matcher.count < open { hasAnswered = true }
        switch step {
        case .partial: break
        case .unasked:
            guard !channels.isEmpty, ReplyMatcher.isMessage(reply) else {
                throw .outOfStep("a reply that nobody asked for")
            }
            observer?.redisMessage(self, channel: reply.text(2), payload: reply.text(3))
        case .answered(let asked):
            switch asked.question {
            case .handshake(let step): try handshakeAnswered(step, reply, sentAt: asked.sentAt)
            case .subscription: if matcher.count == 0 { observer?.redisSubscribed(self) }
            case .ping: break
            case .command, .transaction: asked.requester?.redisReplied(reply, token: asked.token)
            case .shared, .part: break
            }
        case .answeredInParts:
            var start: Int?
            // Whoever is told may close this connection: then nobody is left.
            while let (asked, commands) = matcher.takePart() {
                hasAnswered = true
                start = reply.showPart(elements: commands, from: start)
                asked.requester?.redisReplied(reply, token: asked.token)
            }
        case .refusedInParts(let text):
            while let (asked, _) = matcher.takePart() {
                hasAnswered = true
                asked.requester?.redisFailed(.refused(text), token: asked.token)
            }
            refused(text)
        case .refused(let asked, let text):
            switch asked.question {
            case .handshake(let step): handshakeRefused(step, text)
            case .subscription: lost(.refused(text))
            // It has answered. That it does not serve is for those to tell who ask for something.
            case .ping: if !RedisCause(errorText: text).isOfLivingServer { lost(.refused(text)) }
            case .command, .transaction:
                asked.requester?.redisFailed(.refused(text), token: asked.token)
                refused(text)
            case .shared, .part: break
            }
        // Whoever asked must not take it for undone.
        case .ranAlone(let text): lost(.refused(text))
        }
    }

    /// Whoever asked has been told. Another connection may lead to a server that does not refuse.
    private func refused(_ text: String) {
        let cause = RedisCause(errorText: text)
        guard state == .ready, cause.asksForAnotherConnection else { return }
        if cause == .moved, endpoint.takesRedirections { return }
        guard endpoint.followsSlot, case .moved(_, let place) = Redirection(text, from: endpoint.location) else {
            lost(.refused(text))
            return
        }
        // Two servers that each name the other are not asked in a circle: the map is looked at.
        if loop.now - readyAt >= Self.redirectionPause {
            reconnect(because: .moved(text), at: place)
        } else {
            lost(.moved(text))
        }
    }

    // MARK: Stream

    package func streamConnected(_ stream: Stream) {
        guard self.stream === stream else { return }
        if let client = endpoint.tls { beginTLS(client) } else { greet() }
    }
    package func streamDrained(_ stream: Stream) {}
    package func streamFailed(_ stream: Stream, _ error: SystemError) {
        guard self.stream === stream else { return }
        if stream.isOpen { broken(stream, error) } else { lost(.lost(error.reason)) }
    }
    package func streamDeadlinePassed(_ stream: Stream) {
        guard self.stream === stream else { return }
        switch state {
        case .ready: if matcher.count > 0 { lost(.silent("no answer for \(silenceMax)")) }
        case .connecting where session != nil:
            lost(
                .silent(
                    "no answer to the TLS handshake within \(Self.connectTimeout): the server hangs, "
                        + "or \(endpoint.location) speaks no TLS"))
        case .connecting, .handshaking: lost(.silent("no connection within \(Self.connectTimeout)"))
        case .resting, .locating, .resolving, .closed: break
        }
    }
}
