// One connection to Redis on one loop: commands are pipelined, all of a turn leave in one write, and replies are matched
// to them strictly in order. Anything out of step closes the connection: an answer can never reach another's question.
// It connects again by itself.

package import EventLoop
package import Hiredis
package import LinuxIO
package import Primitives

/// Who asked. Called on the loop.
package protocol RedisRequester: AnyObject {
    /// A command's reply, or what a transaction's `EXEC` gave: an array with one element for each command.
    func redisReplied(_ reply: Reply, token: UInt64)
    func redisFailed(_ failure: RedisFailure, token: UInt64)
}

/// Who wants to know how the connection is.
package protocol RedisObserver: AnyObject {
    /// Logged in. `sample` is the server's time and when it was asked and answered.
    func redisReady(_ connection: RedisConnection, sample: ServerTimeSample)
    /// No longer connected, or not yet; it tries again by itself.
    func redisLost(_ connection: RedisConnection, _ failure: RedisFailure)
    /// All channels are subscribed: what is published from now on arrives.
    func redisSubscribed(_ connection: RedisConnection)
    /// A message on a channel this connection has subscribed to.
    func redisMessage(_ connection: RedisConnection, channel: String, payload: String)
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
}

package final class RedisConnection: StreamHandler, EndOfTurnHandler, WakeHandler {
    private enum State {
        case resting, resolving, connecting, handshaking, ready, closed
    }

    /// What the next reply answers.
    private struct Expectation {
        enum Kind {
            case handshake(HandshakeStep)
            case command
            /// So many `QUEUED` between `OK` and the array.
            case transaction(commands: Int)
            case subscription
        }
        var kind: Kind
        var requester: (any RedisRequester)?
        var token: UInt64
        var sentAt: MonotonicTime
    }

    private enum HandshakeStep { case login, optional, time }

    package let name: String
    private let loop: Loop
    private let resolver: Resolver
    private let endpoint: RedisEndpoint
    private let channels: [String]
    private weak var observer: (any RedisObserver)?
    private let resolved: Mailbox<Resolver.Answer>

    private var state = State.resting
    private var stream: Stream?
    private var writer = CommandWriter()
    private var reader = ReplyReader()
    private var input = ByteBuffer()
    private var expected: [Expectation] = []
    private var answered = 0
    /// How many replies of the transaction at the front have come: `OK`, then `QUEUED`s.
    private var stage = 0
    private var queueError: String?
    private var flushAsked = false
    private var addresses: [IPAddress] = []
    private var attempt = 0
    private var commandsInTransaction = -1
    private var writtenFrom = -1
    private var retry: LoopTimer?
    private var pause = RedisConnection.pauseMin
    private var random: SplitMix64
    private var lastFailure = RedisFailure.notConnected

    private static let connectTimeout = TimeSpan.seconds(1)
    private static let pauseMin = TimeSpan.milliseconds(20)
    /// Short, so that a server that is back is used again within a second.
    private static let pauseMax = TimeSpan.milliseconds(400)
    /// A server that is silent for so long with questions open is taken for gone. Long enough for one that hangs for a
    /// moment to answer, so that what it then executes is accounted for.
    private static let silenceMax = TimeSpan.seconds(10)
    private static let readSize = 64 << 10

    /// - Parameters:
    ///   - name: shown by `CLIENT LIST`; no spaces.
    ///   - channels: subscribed to as soon as the connection is up; such a connection takes no other commands.
    ///   - seed: for the jitter between attempts.
    package init(
        _ endpoint: RedisEndpoint, name: String, channels: [String] = [], loop: Loop, resolver: Resolver, seed: UInt64,
        observer: any RedisObserver
    ) {
        self.endpoint = endpoint
        self.name = name
        self.channels = channels
        self.loop = loop
        self.resolver = resolver
        self.observer = observer
        random = SplitMix64(seed: seed)
        resolved = Mailbox(waker: loop.waker)
        loop.addWakeHandler(self)
    }

    package var isReady: Bool { state == .ready }

    /// Replies that are still to come.
    package var outstanding: Int { expected.count - answered }

    // MARK: Connecting

    package func start() {
        guard state == .resting else { return }
        switch endpoint.location {
        case .unix(let path): connect(to: [.unix(path)], index: 0)
        case .tcp(let host, _):
            state = .resolving
            if let literal = IPAddress(host) {
                addresses = [literal]
                connectNext()
                return
            }
            let mailbox = resolved
            resolver.resolve(host) { mailbox.post($0) }
        }
    }

    package func close() {
        state = .closed
        retry?.cancel()
        retry = nil
        failAll(.lost("closed"))
        stream?.close()
        stream = nil
    }

    package func woken() {
        for answer in resolved.take() where state == .resolving {
            switch answer {
            case .success(let list):
                addresses = list
                attempt = 0
                connectNext()
            case .failure(let error): lost(.lost(error.description))
            }
        }
    }

    private func connectNext() {
        guard case .tcp(_, let port) = endpoint.location, attempt < addresses.count else {
            lost(lastFailure)
            return
        }
        let target = SocketAddress(ip: addresses[attempt], port: port)
        attempt += 1
        connect(to: [.tcp(target)], index: 0)
    }

    private func connect(to endpoints: [Endpoint], index: Int) {
        state = .connecting
        do throws(SystemError) {
            let stream = try loop.connect(to: endpoints[index], handler: self)
            self.stream = stream
            stream.deadline = loop.now + Self.connectTimeout
        } catch {
            lost(.lost("\(endpoints[index]): \(error.reason)"))
        }
    }

    package func streamConnected(_ stream: Stream) {
        state = .handshaking
        attempt = 0
        reader = ReplyReader()
        if let password = endpoint.password {
            writer.add("AUTH")
            if let username = endpoint.username { writer.add(username) }
            writer.add(password)
            send(.handshake(.login))
        }
        if endpoint.database != 0 {
            writer.add("SELECT")
            writer.add(Int64(endpoint.database))
            send(.handshake(.login))
        }
        writer.add("CLIENT")
        writer.add("SETNAME")
        writer.add(name)
        send(.handshake(.optional))
        writer.add("TIME")
        send(.handshake(.time))
    }

    private func subscribe() {
        guard !channels.isEmpty else { return }
        writer.add("SUBSCRIBE")
        for channel in channels { writer.add(channel) }
        writer.end()
        for _ in channels {
            expected.append(Expectation(kind: .subscription, requester: nil, token: 0, sentAt: loop.now))
        }
        askFlush()
    }

    private func lost(_ failure: RedisFailure) {
        guard state != .closed else { return }
        stream?.close()
        stream = nil
        lastFailure = failure
        if state == .connecting, attempt < addresses.count, attempt > 0 {
            connectNext()
            return
        }
        attempt = 0
        state = .resting
        writer.output.clear()
        failAll(failure)
        let timer = retry ?? LoopTimer(loop) { [weak self] in self?.start() }
        retry = timer
        // Nodes that lost the same server must not come back in step.
        let jitter = Int64.random(in: 0...pause.nanoseconds / 2, using: &random)
        timer.schedule(after: pause + TimeSpan(nanoseconds: jitter))
        pause = min(pause + pause, Self.pauseMax)
        observer?.redisLost(self, failure)
    }

    private func failAll(_ failure: RedisFailure) {
        let open = expected[answered...]
        expected = []
        answered = 0
        stage = 0
        queueError = nil
        for expectation in open { expectation.requester?.redisFailed(failure, token: expectation.token) }
    }

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
        writer.add("MULTI")
        writer.end()
        commandsInTransaction = 0
    }

    package func endTransaction(_ requester: any RedisRequester, token: UInt64) {
        writer.add("EXEC")
        writer.end()
        let commands = commandsInTransaction
        commandsInTransaction = -1
        expect(.transaction(commands: commands), requester, token)
    }

    /// Where the command or transaction at hand begins, so that it can be taken back.
    private func markStart() {
        if writtenFrom < 0 { writtenFrom = writer.output.count }
    }

    private func expect(_ kind: Expectation.Kind, _ requester: any RedisRequester, _ token: UInt64) {
        let start = writtenFrom
        writtenFrom = -1
        guard state == .ready else {
            if start >= 0 { writer.output.truncate(to: start) }
            requester.redisFailed(lastFailure, token: token)
            return
        }
        expected.append(Expectation(kind: kind, requester: requester, token: token, sentAt: loop.now))
        askFlush()
    }

    private func send(_ kind: Expectation.Kind) {
        writer.end()
        expected.append(Expectation(kind: kind, requester: nil, token: 0, sentAt: loop.now))
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
        let outcome = flush(writer.output, stream)
        writer.output.clear()
        if case .failed(let error) = outcome {
            lost(.lost(error.reason))
            return
        }
        if stream.deadline == .distantFuture { stream.deadline = loop.now + Self.silenceMax }
    }

    private func flush(_ output: borrowing ByteBuffer, _ stream: Stream) -> IOOutcome { stream.send(output.bytes) }

    // MARK: Receiving

    package func streamReadable(_ stream: Stream) {
        while stream.mayHaveBytes, self.stream === stream {
            input.clear()
            switch stream.receive(into: &input, room: Self.readSize) {
            case .bytes: take(input)
            case .wouldBlock: return
            case .endOfFile: lost(.lost("the server closed the connection"))
            case .failed(let error): lost(.lost(error.reason))
            }
        }
    }

    private func take(_ buffer: borrowing ByteBuffer) {
        reader.feed(buffer.bytes)
        let stream = self.stream
        do throws(RedisProtocolError) {
            while try reader.next() {
                try taken(reader.reply)
                // What a reply led to may have closed this connection.
                guard self.stream === stream, stream != nil else { return }
            }
        } catch {
            lost(.malformed(error.reason))
            return
        }
        if answered > 1024, answered * 2 > expected.count {
            expected.removeFirst(answered)
            answered = 0
        }
        self.stream?.deadline = outstanding == 0 ? .distantFuture : loop.now + Self.silenceMax
    }

    private static let ok = Array("OK".utf8)
    private static let queued = Array("QUEUED".utf8)

    private func taken(_ reply: Reply) throws(RedisProtocolError) {
        guard answered < expected.count else {
            guard !channels.isEmpty, message(reply) else {
                throw RedisProtocolError(reason: "a reply that nobody asked for")
            }
            return
        }
        switch expected[answered].kind {
        case .handshake(let step): try handshake(step, reply)
        case .command:
            let expectation = pop()
            if reply.kind(0) == .error {
                expectation.requester?.redisFailed(.refused(reply.text(0)), token: expectation.token)
            } else {
                expectation.requester?.redisReplied(reply, token: expectation.token)
            }
        case .transaction(let commands): try transaction(commands, reply)
        case .subscription:
            // A message may come between the confirmations of two channels.
            if message(reply) { return }
            guard reply.kind(0) == .array, reply.text(1) == "subscribe" else {
                throw RedisProtocolError(reason: "no confirmation of a subscription: \(reply.text(0))")
            }
            _ = pop()
            if outstanding == 0 { observer?.redisSubscribed(self) }
        }
    }

    private func pop() -> Expectation {
        let expectation = expected[answered]
        // The requester must not be kept alive by a reply that has come.
        expected[answered].requester = nil
        answered += 1
        if answered == expected.count {
            expected.removeAll(keepingCapacity: true)
            answered = 0
        }
        return expectation
    }

    private func transaction(_ commands: Int, _ reply: Reply) throws(RedisProtocolError) {
        if stage <= commands {
            if reply.kind(0) == .error {
                // A command that cannot be queued; EXEC will answer EXECABORT.
                if queueError == nil { queueError = reply.text(0) }
            } else {
                let word = stage == 0 ? Self.ok : Self.queued
                guard reply.kind(0) == .status, reply.isText(0, word) else {
                    throw RedisProtocolError(reason: "a transaction out of step")
                }
            }
            stage += 1
            return
        }
        stage = 0
        let queueError = self.queueError
        self.queueError = nil
        switch reply.kind(0) {
        case .array where queueError == nil:
            guard reply.nodes[0].number == Int64(commands) else {
                throw RedisProtocolError(reason: "a transaction with another number of answers")
            }
            let expectation = pop()
            expectation.requester?.redisReplied(reply, token: expectation.token)
        case .error:
            let expectation = pop()
            expectation.requester?.redisFailed(.refused(queueError ?? reply.text(0)), token: expectation.token)
        case .array, .status, .integer, .bulk, .null: throw RedisProtocolError(reason: "EXEC answered with no array")
        }
    }

    private func handshake(_ step: HandshakeStep, _ reply: Reply) throws(RedisProtocolError) {
        let expectation = pop()
        switch step {
        case .optional: break
        case .login:
            if reply.kind(0) == .error { lost(.refused(reply.text(0))) }
        case .time:
            if reply.kind(0) == .error {
                lost(.refused(reply.text(0)))
                return
            }
            guard reply.kind(0) == .array, reply.count == 3, let seconds = reply.integer(1), let micros = reply.integer(2)
            else { throw RedisProtocolError(reason: "TIME answered with no time") }
            loop.updateTime()
            state = .ready
            pause = Self.pauseMin
            subscribe()
            let time = RedisTime(microseconds: saturatingAdd(saturatingMultiply(seconds, 1_000_000), micros))
            observer?.redisReady(
                self, sample: ServerTimeSample(sentAt: expectation.sentAt, receivedAt: loop.now, time: time))
        }
    }

    private func message(_ reply: Reply) -> Bool {
        guard reply.kind(0) == .array, reply.count == 4, reply.text(1) == "message" else { return false }
        observer?.redisMessage(self, channel: reply.text(2), payload: reply.text(3))
        return true
    }

    // MARK: Stream

    package func streamDrained(_ stream: Stream) {}
    package func streamFailed(_ stream: Stream, _ error: SystemError) { lost(.lost(error.reason)) }
    package func streamDeadlinePassed(_ stream: Stream) {
        if state == .ready, outstanding == 0 { return }
        lost(.lost(state == .ready ? "no answer for \(Self.silenceMax)" : "timed out"))
    }
}
