// How a connection comes about: name → address → socket → login → time of the server; and how it ends.

import EventLoop
import Hiredis
import LinuxIO
import Primitives

extension RedisConnection {
    /// For one address, login included.
    static let connectTimeout = TimeSpan.seconds(1)
    /// A connection that held for so long was a good one, and the next attempt need not wait long.
    private static let steadyAfter = TimeSpan.seconds(1)

    /// Begins to connect, and from then on connects again whenever the connection is lost, until `close`.
    package func start() {
        guard state == .resting else { return }
        attempt = 0
        guard let locator else {
            approach()
            return
        }
        state = .locating
        let failure = wasReady ? nil : lastFailure
        wasReady = false
        locator.locate(self, after: failure == .notConnected ? nil : failure)
    }

    /// The server is there.
    package func located(_ location: RedisEndpoint.Location) {
        guard state == .locating else { return }
        endpoint.location = location
        approach()
    }

    /// Nobody knows where the server is.
    package func notLocated(_ failure: RedisFailure) {
        if state == .locating { lost(failure) }
    }

    /// Whom it leads to is not who should be asked any more: another attempt begins at once.
    ///
    /// - Parameter location: where, if that is known; otherwise it is asked for.
    package func reconnect(because reason: String, at location: RedisEndpoint.Location? = nil) {
        reconnect(because: location == nil ? .lost(reason) : .replaced(reason), at: location)
    }

    func reconnect(because failure: RedisFailure, at location: RedisEndpoint.Location?) {
        switch state {
        case .resting: break
        case .closed, .locating: return
        case .resolving, .connecting, .handshaking, .ready:
            attempt = addresses.count
            lost(failure)
        }
        guard state == .resting else { return }
        retry?.cancel()
        guard let location else {
            start()
            return
        }
        attempt = 0
        state = .locating
        located(location)
    }

    private func approach() {
        switch endpoint.location {
        case .unix(let path): connect(to: .unix(path))
        case .tcp(let host, _):
            state = .resolving
            if let literal = IPAddress(host) {
                addresses = [literal]
                connectToNext()
                return
            }
            resolutions += 1
            let (mailbox, question) = (resolved, resolutions)
            // Asked anew each time: after a failover the name may lead to another server.
            resolver.resolve(host) { mailbox.post((question, $0)) }
        }
    }

    /// Ends it for good. Open questions fail.
    package func close() {
        guard state != .closed else { return }
        state = .closed
        loop.removeWakeHandler(self)
        retry?.cancel()
        retry = nil
        stream?.close()
        stream = nil
        session = nil
        failAll(.lost("closed"))
    }

    package func woken() {
        for (question, answer) in resolved.take() where state == .resolving && question == resolutions {
            switch answer {
            case .success(let list):
                addresses = list
                connectToNext()
            case .failure(let error): lost(.lost(error.description))
            }
        }
    }

    private func connectToNext() {
        guard case .tcp(_, let port) = endpoint.location, attempt < addresses.count else {
            lost(lastFailure)
            return
        }
        let address = SocketAddress(ip: addresses[attempt], port: port)
        attempt += 1
        connect(to: .tcp(address))
    }

    private func connect(to endpoint: Endpoint) {
        state = .connecting
        do throws(SystemError) {
            let stream = try loop.connect(to: endpoint, handler: self)
            self.stream = stream
            stream.deadline = loop.now + Self.connectTimeout
        } catch {
            lost(.lost("\(endpoint): \(error.reason)"))
        }
    }

    /// Logs in and asks for the time, all in one write.
    func greet() {
        state = .handshaking
        lastWord = nil
        hasHeard = false
        reader = ReplyReader()
        writer.output.clear()
        if let password = endpoint.password {
            writer.add("AUTH")
            if let username = endpoint.username { writer.add(username) }
            writer.add(password)
            ask(.handshake(.login))
        }
        if endpoint.database != 0 {
            writer.add("SELECT")
            writer.add(Int64(endpoint.database))
            ask(.handshake(.login))
        }
        writer.add("CLIENT")
        writer.add("SETNAME")
        writer.add(name)
        ask(.handshake(.optional))
        if endpoint.mustBePrimary {
            writer.add("ROLE")
            ask(.handshake(.role))
        }
        // Where one of the two is forbidden, what is written between them would run command by command, or not at all.
        if endpoint.takesTransactions {
            writer.add("MULTI")
            ask(.handshake(.login))
            writer.add("EXEC")
            ask(.handshake(.login))
        }
        if endpoint.tellsTime { writer.add("TIME") } else { writer.add("PING") }
        ask(.handshake(.time))
    }

    func handshakeAnswered(
        _ step: OpenQuestion.HandshakeStep, _ reply: Reply, sentAt: MonotonicTime
    ) throws(RedisProtocolError) {
        switch step {
        case .login, .optional: break
        case .role:
            if reply.text(1) != "master" { lost(.refused("READONLY \(endpoint.location) is a \(reply.text(1))")) }
        case .time:
            guard let sample = timeSample(reply, sentAt: sentAt) else {
                throw .outOfStep("TIME answered with no time")
            }
            state = .ready
            readyAt = loop.now
            wasReady = true
            if !channels.isEmpty {
                writer.add("SUBSCRIBE")
                for channel in channels { writer.add(channel) }
                ask(.subscription, count: channels.count)
                keepAlive()
            }
            observer?.redisReady(self, sample: sample)
        }
    }

    private func timeSample(_ reply: Reply, sentAt: MonotonicTime) -> ServerTimeSample? {
        guard endpoint.tellsTime else {
            return ServerTimeSample(sentAt: sentAt, receivedAt: loop.now, time: RedisTime(microseconds: 0))
        }
        return ServerTimeSample(reply, at: 0, sentAt: sentAt, receivedAt: loop.now)
    }

    func handshakeRefused(_ step: OpenQuestion.HandshakeStep, _ text: String) {
        switch step {
        // A server that forbids a name works without, and one that turns us away says so to whatever comes first.
        case .optional: if state == .handshaking, RedisCause(errorText: text) != .permission { lastWord = text }
        case .login, .role, .time: lost(.refused(text))
        }
    }

    /// The connection is gone or did not come about: everyone who waits is told, and it is tried again.
    func lost(_ failure: RedisFailure) {
        guard state != .closed else { return }
        stream?.close()
        stream = nil
        session = nil
        isSecured = false
        let failure = named(failure)
        lastFailure = failure
        writer.output.clear()
        if state == .ready, loop.now - readyAt >= Self.steadyAfter { backoff.reset() }
        if state == .connecting, attempt < addresses.count {
            connectToNext()
            return
        }
        state = .resting
        failAll(failure)
        // Whoever was told may have closed this connection.
        guard state == .resting else { return }
        let timer = retry ?? LoopTimer(loop) { [weak self] in self?.start() }
        retry = timer
        timer.schedule(after: backoff.next())
        observer?.redisLost(self, failure)
    }

    /// What the end of a connection means that was only greeted.
    private func named(_ failure: RedisFailure) -> RedisFailure {
        guard state == .handshaking, case .lost(let reason) = failure else { return failure }
        if let lastWord { return .refused(lastWord) }
        guard !hasHeard, endpoint.tls == nil, case .tcp = endpoint.location else { return failure }
        return .unanswered(reason)
    }

    private func failAll(_ failure: RedisFailure) {
        // Only what was answered with a refusal is known not to have been executed.
        var failure = failure
        switch failure {
        case .refused(let text), .moved(let text): failure = .lost(text)
        case .notConnected, .lost, .unanswered, .replaced, .silent, .late, .malformed, .tooLarge, .untrusted, .sentinel:
            break
        }
        for question in matcher.removeAll() {
            question.requester?.redisFailed(failure, token: question.token)
        }
    }
}
