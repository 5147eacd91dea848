import EventLoop
import Hiredis
import LinuxIO
import Primitives
import RedisClient
import TestSupport
import Testing

final class Client: RedisRequester, RedisObserver {
    let loop: Loop
    var log: [String] = []
    var failures: [RedisFailure] = []
    var samples: [ServerTimeSample] = []
    var connection: RedisConnection!

    init(_ endpoint: RedisEndpoint, channels: [String] = [], silenceMax: TimeSpan = .seconds(1)) throws {
        loop = try Loop(waker: Waker())
        connection = RedisConnection(
            endpoint, name: "test", channels: channels, silenceMax: silenceMax, loop: loop, resolver: Resolver(),
            seed: 1, observer: self)
        connection.start()
    }

    func redisReplied(_ reply: Reply, token: UInt64) { log.append("\(token) \(RedisTestClient.notation(reply))") }
    func redisFailed(_ failure: RedisFailure, token: UInt64) { log.append("\(token) failed \(failure)") }
    func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) {
        samples.append(sample)
        log.append("ready")
    }
    func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) {
        failures.append(failure)
        log.append("lost \(failure)")
    }
    func redisSubscribed(_ connection: RedisConnection) { log.append("subscribed") }
    func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {
        log.append("message \(channel) \(payload)")
    }

    func write(_ arguments: String...) {
        connection.write { writer in
            for argument in arguments { writer.add(argument) }
        }
    }

    func send(_ token: UInt64, _ arguments: String...) {
        connection.write { writer in
            for argument in arguments { writer.add(argument) }
        }
        connection.sendCommand(self, token: token)
    }

    /// Runs the loop until the log's end is `done`; a test that waits in vain is told what it has seen.
    func run(until done: (String) -> Bool) -> Bool {
        for _ in 0..<2_000 {
            if log.contains(where: done) { return true }
            loop.turn(waitMax: .milliseconds(10))
        }
        Issue.record("waited in vain: \(log)")
        return false
    }
    func run(until word: String) -> Bool { run { $0.hasPrefix(word) } }
}

extension RedisServer {
    fileprivate var unix: RedisEndpoint { RedisEndpoint(.unix(path: socketPath)) }
    fileprivate func tcp(_ host: String = "127.0.0.1") -> RedisEndpoint { RedisEndpoint(.tcp(host: host, port: port)) }
}

@Suite("Connections to Redis", .timeLimit(.minutes(1)))
struct RedisConnectionTests {
    @Test("a connection comes about over each kind of address, and knows the server's time", arguments: 0..<3)
    func connects(kind: Int) throws {
        let server = try RedisServer()
        let endpoint = [server.unix, server.tcp(), server.tcp("localhost")][kind]
        let client = try Client(endpoint)
        #expect(client.run(until: "ready"))
        client.send(1, "CLIENT", "GETNAME")
        #expect(client.run(until: "1 'test'"))
        let sample = try #require(client.samples.first)
        #expect(sample.sentAt <= sample.receivedAt)
        #expect(abs(sample.time.microseconds - SystemClock.wallMicroseconds()) < 60_000_000)
        client.connection.close()
    }

    @Test("commands and transactions are answered in order, a thousand in one write")
    func pipeline() throws {
        let server = try RedisServer()
        let client = try Client(server.unix)
        #expect(client.run(until: "ready"))
        client.log = []
        for token in 0..<1_000 as Range<UInt64> {
            if token % 2 == 0 {
                client.send(token, "ECHO", "\(token)")
            } else {
                client.connection.beginTransaction()
                client.write("INCR", "n")
                client.write("ECHO", "\(token)")
                client.connection.endTransaction(client, token: token)
            }
        }
        #expect(client.connection.outstanding == 1_000)
        #expect(client.run(until: "999 "))
        #expect(
            client.log
                == (0..<1_000).map { $0 % 2 == 0 ? "\($0) '\($0)'" : "\($0) [\(($0 + 1) / 2) '\($0)']" })
        #expect(client.connection.outstanding == 0)
    }

    @Test("errors are failures of the one who asked, and of nobody else")
    func errors() throws {
        let server = try RedisServer()
        let client = try Client(server.unix)
        #expect(client.run(until: "ready"))
        client.send(1, "NOSUCH")
        client.connection.transaction(commands: 2, client, token: 2) { writer in
            writer.add("SET")
            writer.end()
            writer.add("PING")
            writer.end()
        }
        client.connection.transaction(commands: 2, client, token: 3) { writer in
            writer.add("SET")
            writer.add("s")
            writer.add("1")
            writer.end()
            writer.add("ZCARD")
            writer.add("s")
            writer.end()
        }
        client.send(4, "PING")
        #expect(client.run(until: "4 "))
        #expect(client.log[1].hasPrefix("1 failed refused: ERR unknown command"))
        #expect(client.log[2].hasPrefix("2 failed refused: ERR wrong number of arguments"))
        #expect(client.log[3].hasPrefix("3 [+OK -WRONGTYPE"))
        #expect(client.log[4] == "4 +PONG")
    }

    @Test("a password and a database are used, and a wrong one is told", arguments: [true, false])
    func login(right: Bool) throws {
        let server = try RedisServer(["--requirepass", "s3 cret"])
        let client = try Client(
            RedisEndpoint(
                .unix(path: server.socketPath), username: "default", password: right ? "s3 cret" : "x", database: 5))
        if right {
            #expect(client.run(until: "ready"))
            client.send(1, "CLIENT", "INFO")
            #expect(client.run { $0.contains(" db=5 ") })
        } else {
            #expect(client.run(until: "lost refused: WRONGPASS"))
            #expect(!client.connection.isReady)
        }
    }

    @Test(
        "what a server says before it turns a connection away is the reason, and it is tried again",
        arguments: [true, false], [true, false])
    func turnedAway(isUnix: Bool, withPassword: Bool) throws {
        let server = try RedisServer()
        let held = try server.client()
        #expect(try held.ask(["CONFIG", "SET", "maxclients", "1"]) == "+OK")
        var endpoint = isUnix ? server.unix : server.tcp()
        if withPassword { (endpoint.username, endpoint.password) = ("default", "x") }
        let client = try Client(endpoint)
        #expect(client.run(until: "lost refused: ERR max number of clients reached"))
        #expect(try held.ask(["CONFIG", "SET", "maxclients", "100"]) == "+OK")
        #expect(client.run(until: "ready"))
        client.connection.close()
    }

    @Test(
        "what a server says has a cause, and the cause a remedy of its own",
        arguments: [
            ("ERR max number of clients reached", .maxClients, "raise maxclients"),
            ("ERR max number of clients + cluster connections reached", .maxClients, "raise maxclients"),
            (
                "DENIED Redis is running in protected mode because …", .denied,
                "Redis is in protected mode: give it a password"
            ),
            ("EXECABORT Transaction discarded because of previous errors.", .other, "see what the server says"),
            ("EXECABORT Transaction discarded because of: OOM command not allowed", .outOfMemory, "raise maxmemory"),
            ("ERR unknown command", .other, "see what the server says"),
            ("WRONGPASS invalid username-password pair", .login, "set the user and the password"),
            (
                "ERR AUTH <password> called without any password configured for the default user.", .login,
                "Redis has no password: take it out of rateLimit.redisURL"
            ),
            ("ERR Client sent AUTH, but no password is set", .login, "Redis has no password"),
            ("MOVED 59 127.0.0.1:7002", .moved, "the server is part of a Redis Cluster"),
            ("CROSSSLOT Keys in request don't hash", .moved, "the server is part of a Redis Cluster"),
        ] as [(String, RedisCause, String)])
    func causes(text: String, cause: RedisCause, remedy: String) {
        #expect(RedisFailure.refused(text).cause == cause)
        #expect(RedisFailure.refused(text).remedy.hasPrefix(remedy))
        let onCluster = RedisFailure.refused(text).remedy(user: nil, onCluster: true)
        #expect(onCluster.hasPrefix(cause == .moved ? "none is needed" : remedy))
    }

    @Test(
        "who may not say where a transaction begins or ends is refused before anything runs",
        arguments: ["multi", "exec"])
    func transactionsForbidden(command: String) throws {
        let server = try RedisServer()
        let admin = try server.client()
        #expect(try admin.ask(["ACL", "SETUSER", "u", "on", "nopass", "~*", "+@all", "-\(command)"]) == "+OK")
        var endpoint = server.unix
        (endpoint.username, endpoint.password, endpoint.takesTransactions) = ("u", "x", true)
        let client = try Client(endpoint)
        #expect(client.run { $0.hasPrefix("lost refused: ") && $0.contains("NOPERM") })
        let failure = RedisFailure.refused(
            "EXECABORT Transaction discarded because of: NOPERM this user has no permissions to run the '\(command)' command"
        )
        #expect(failure.cause == .permission)
        #expect(failure.remedy(user: "u").hasPrefix("ACL SETUSER u +\(command) grants it"))
        #expect(try admin.ask(["ACL", "SETUSER", "u", "+\(command)"]) == "+OK")
        #expect(client.run(until: "ready"))
        // Taken away while the connection is there: whoever asked must not believe that nothing was done.
        client.log = []
        #expect(try admin.ask(["ACL", "SETUSER", "u", "-\(command)"]) == "+OK")
        client.connection.transaction(commands: 1, client, token: 7) { writer in
            writer.add("INCR")
            writer.add("n")
            writer.end()
        }
        if command == "multi" {
            #expect(client.run(until: "lost refused: NOPERM"))
            #expect(client.log.first?.hasPrefix("7 failed connection lost: NOPERM") == true, "\(client.log)")
            #expect(try admin("GET", "n") == "'1'")
        } else {
            #expect(client.run(until: "7 failed refused: EXECABORT"))
            #expect(try admin("EXISTS", "n") == "0")
        }
        client.connection.close()
    }

    @Test("when the server is gone, who waits is told, and the connection comes back with it")
    func reconnects() throws {
        let server = try RedisServer()
        let client = try Client(server.tcp())
        #expect(client.run(until: "ready"))
        client.send(1, "BLPOP", "never", "0")
        client.loop.turn(waitMax: .milliseconds(10))
        server.kill()
        #expect(client.run(until: "lost"))
        #expect(client.log[1].hasPrefix("1 failed connection lost"))
        client.send(2, "PING")
        #expect(client.log.last == "2 failed not connected")
        client.log = []
        // It goes on trying while nobody is there.
        #expect(client.run(until: "lost"))
        client.log = []
        try server.start()
        #expect(client.run(until: "ready"))
        client.send(3, "PING")
        #expect(client.run(until: "3 +PONG"))
    }

    @Test("a server that hangs is given up and found again")
    func hangs() throws {
        let server = try RedisServer()
        let client = try Client(server.unix, silenceMax: .milliseconds(50))
        #expect(client.run(until: "ready"))
        server.pause()
        client.send(1, "PING")
        #expect(client.run(until: "1 failed connection lost: no answer for 50ms"))
        server.resume()
        client.log = []
        #expect(client.run(until: "ready"))
    }

    @Test("a connection on which only messages come is given up when the server hangs, and not while it is quiet")
    func hangsQuietly() throws {
        let server = try RedisServer()
        let client = try Client(server.unix, channels: ["a"], silenceMax: .milliseconds(100))
        #expect(client.run(until: "subscribed"))
        for _ in 0..<30 { client.loop.turn(waitMax: .milliseconds(10)) }
        #expect(client.log == ["ready", "subscribed"])
        server.pause()
        #expect(client.run(until: "lost connection lost: no answer for 100ms"))
        server.resume()
        client.log = []
        #expect(client.run(until: "subscribed"))
    }

    @Test("one that is told instead of a pong that the server takes no writes now is kept, and hears on")
    func refusedPings() throws {
        let server = try RedisServer()
        let client = try Client(server.unix, channels: ["a"], silenceMax: .milliseconds(100))
        #expect(client.run(until: "subscribed"))
        try server.failToSave()
        let asker = try server.client()
        #expect(try asker("PING").hasPrefix("-MISCONF"))
        for _ in 0..<30 { client.loop.turn(waitMax: .milliseconds(10)) }
        #expect(client.log == ["ready", "subscribed"])
        try asker("PUBLISH", "a", "still here")
        #expect(client.run(until: "message a still here"))
        // Who has to log in anew is told so, in the server's words.
        try asker("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
        try asker("CONFIG", "SET", "requirepass", "x")
        try asker("ACL", "SETUSER", "default", "-ping")
        for _ in 0..<30 { client.loop.turn(waitMax: .milliseconds(10)) }
        #expect(client.log.last == "message a still here")
    }

    @Test("an idle connection is not given up")
    func idle() throws {
        let server = try RedisServer()
        let client = try Client(server.unix, silenceMax: .milliseconds(250))
        #expect(client.run(until: "ready"))
        for _ in 0..<40 { client.loop.turn(waitMax: .milliseconds(10)) }
        client.send(1, "PING")
        #expect(client.run(until: "1 +PONG"))
        #expect(client.log == ["ready", "1 +PONG"])
    }

    @Test("messages arrive after the subscription is told, also after a restart of the server")
    func subscription() throws {
        let server = try RedisServer()
        let client = try Client(server.unix, channels: ["a", "b"])
        for round in 0..<2 {
            #expect(client.run(until: "subscribed"))
            let publisher = try server.client()
            #expect(try publisher("PUBLISH", "a", "x\(round)") == "1")
            #expect(try publisher("PUBLISH", "b", "y") == "1")
            #expect(client.run(until: "message b y"))
            #expect(client.log == ["ready", "subscribed", "message a x\(round)", "message b y"])
            server.kill()
            #expect(client.run(until: "lost"))
            client.log = []
            try server.start()
            client.log.removeAll { $0.hasPrefix("lost") }
        }
    }

    @Test("a server that has become a replica is left for the one that the name leads to now")
    func readOnly() throws {
        let server = try RedisServer()
        let client = try Client(server.unix)
        #expect(client.run(until: "ready"))
        _ = try server.client()("REPLICAOF", "127.0.0.1", "1")
        client.log = []
        client.send(1, "SET", "k", "v")
        client.send(2, "ECHO", "x")
        #expect(client.run(until: "lost refused: READONLY"))
        #expect(client.log.first?.hasPrefix("1 failed refused: READONLY") == true)
        // Of what was not answered, nobody knows whether it was executed.
        #expect(client.log[1].hasPrefix("2 failed connection lost: READONLY"))
        _ = try server.client()("REPLICAOF", "NO", "ONE")
        #expect(client.run(until: "ready"))
    }

    @Test("a name that does not resolve, and a port where nobody listens, are told and tried again")
    func unreachable() throws {
        let unknown = try Client(RedisEndpoint(.tcp(host: "no-such-host.invalid", port: 1)))
        #expect(unknown.run(until: "lost connection lost: no-such-host.invalid"))
        let closed = try HeldPort()
        defer { withExtendedLifetime(closed) {} }
        let nobody = try Client(RedisEndpoint(.tcp(host: "127.0.0.1", port: closed.port)))
        #expect(nobody.run(until: "lost connection lost: Connection refused"))
        nobody.log = []
        #expect(nobody.run(until: "lost"))
        nobody.connection.close()
        nobody.log = []
        for _ in 0..<20 { nobody.loop.turn(waitMax: .milliseconds(5)) }
        #expect(nobody.log == [])
    }

    @Test("a password for a server that has none is told as that")
    func needlessPassword() throws {
        let server = try RedisServer()
        let client = try Client(RedisEndpoint(.unix(path: server.socketPath), password: "x"))
        #expect(client.run(until: "lost refused: ERR AUTH"))
        #expect(client.failures.first?.cause == .login)
        #expect(client.failures.first?.remedy.hasPrefix("Redis has no password") == true)
        client.connection.close()
    }

    @Test(
        "an answer that trickles is none, and one that a slow line brings in pieces is",
        arguments: [(piece: 1, arrives: false), (piece: 4_096, arrives: true)])
    func trickling(piece: Int, arrives: Bool) throws {
        let silenceMax = TimeSpan.milliseconds(arrives ? 1_000 : 200)
        let loop = try Loop(waker: Waker())
        let fake = Trickling(loop, piece: piece)
        let listener = try loop.listen(
            on: ListeningSocket(SocketAddress(ip: .v4Loopback, port: 0), reusePort: false), handler: fake)
        let client = try Client(
            RedisEndpoint(.tcp(host: "127.0.0.1", port: listener.socket.address.port)), silenceMax: silenceMax)
        func run(until word: String) {
            for _ in 0..<10_000 where !client.log.contains(where: { $0.hasPrefix(word) }) {
                client.loop.turn(waitMax: .milliseconds(1))
                loop.turn(waitMax: .milliseconds(1))
            }
            #expect(client.log.contains { $0.hasPrefix(word) }, "\(client.log.map { $0.prefix(80) })")
        }
        run(until: "ready")
        client.send(1, "GET", "large")
        run(until: arrives ? "1 'vvv" : "1 failed connection lost: no answer for 200ms")
        if arrives {
            // Longer than silence is borne.
            #expect(fake.began.map { loop.now - $0 > silenceMax } == true)
            #expect(!client.log.contains { $0.hasPrefix("lost") })
        }
        client.connection.close()
    }

    @Test(
        "a port that ends the connection before a word, or answers in TLS, may be one of TLS", arguments: [true, false])
    func perhapsTLS(answers: Bool) throws {
        let loop = try Loop(waker: Waker())
        let fake = Fake(loop, answer: answers ? "\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{46}" : "")
        let listener = try loop.listen(
            on: ListeningSocket(SocketAddress(ip: .v4Loopback, port: 0), reusePort: false), handler: fake)
        let client = try Client(RedisEndpoint(.tcp(host: "127.0.0.1", port: listener.socket.address.port)))
        for _ in 0..<1_000 where client.log.isEmpty {
            client.loop.turn(waitMax: .milliseconds(2))
            loop.turn(waitMax: .milliseconds(2))
        }
        let failure = try #require(client.failures.first)
        #expect(failure.cause == .unreachable)
        #expect(failure.remedy.hasSuffix("or its port speaks TLS: write rediss in the place of redis there"))
        #expect("\(failure)".contains("answers in TLS") == answers, "\(failure)")
        client.connection.close()
    }

    @Test(
        "a peer that is no Redis, or is out of step, is hung up on",
        arguments: ["HTTP/1.1 400 Bad Request\r\n\r\n", "+OK\r\n+OK\r\n+OK\r\n", "*2147483647\r\n", "+OK\r\n:1\r\n"])
    func notRedis(answer: String) throws {
        let loop = try Loop(waker: Waker())
        let fake = Fake(loop, answer: answer)
        let listener = try loop.listen(
            on: ListeningSocket(SocketAddress(ip: .v4Loopback, port: 0), reusePort: false), handler: fake)
        let client = try Client(RedisEndpoint(.tcp(host: "127.0.0.1", port: listener.socket.address.port)))
        for _ in 0..<1_000 where client.log.isEmpty {
            client.loop.turn(waitMax: .milliseconds(2))
            loop.turn(waitMax: .milliseconds(2))
        }
        #expect(client.log.first?.hasPrefix("lost malformed answer") == true, "\(client.log)")
        #expect(!client.connection.isReady)
    }
}

/// Logs in whoever comes, and then says a large value piece by piece.
private final class Trickling: ListenerHandler, StreamHandler {
    let loop: Loop
    let piece: Int
    private var isGreeted = false
    private var left: [UInt8] = []
    private var stream: Stream?
    private var timer: LoopTimer!
    private(set) var began: MonotonicTime?

    private static let size = 64 * 4_096

    init(_ loop: Loop, piece: Int) {
        self.loop = loop
        self.piece = piece
        timer = LoopTimer(loop) { [weak self] in self?.goOn() }
    }

    private func goOn() {
        guard let stream, stream.isOpen, !left.isEmpty else { return }
        let next = Array(left.prefix(piece))
        left.removeFirst(next.count)
        stream.send(next.span)
        timer.schedule(after: .milliseconds(20))
    }

    func accepted(_ connection: consuming Accepted, by listener: Listener) {
        stream = try? loop.adopt(connection.take(), handler: self)
    }
    func acceptPaused(_ listener: Listener, _ error: SystemError) {}
    func streamConnected(_ stream: Stream) {}
    func streamReadable(_ stream: Stream) {
        var buffer = ByteBuffer()
        switch stream.receive(into: &buffer, room: 4_096) {
        case .bytes:
            guard isGreeted else {
                isGreeted = true
                stream.send(Array("+OK\r\n*2\r\n$10\r\n1800000000\r\n$1\r\n0\r\n".utf8).span)
                return
            }
            began = loop.now
            left = Array("$\(Self.size)\r\n".utf8) + Array(repeating: UInt8(ascii: "v"), count: Self.size) + [13, 10]
            goOn()
        case .wouldBlock: break
        case .endOfFile, .failed: stream.close()
        }
    }
    func streamDrained(_ stream: Stream) {}
    func streamFailed(_ stream: Stream, _ error: SystemError) { stream.close() }
    func streamDeadlinePassed(_ stream: Stream) {}
}

/// Says always the same; nothing at all: hangs up.
private final class Fake: ListenerHandler, StreamHandler {
    let loop: Loop
    let answer: [UInt8]
    init(_ loop: Loop, answer: String) {
        self.loop = loop
        self.answer = Array(answer.utf8)
    }
    func accepted(_ connection: consuming Accepted, by listener: Listener) {
        _ = try? loop.adopt(connection.take(), handler: self)
    }
    func acceptPaused(_ listener: Listener, _ error: SystemError) {}
    func streamConnected(_ stream: Stream) {}
    func streamReadable(_ stream: Stream) {
        var buffer = ByteBuffer()
        switch stream.receive(into: &buffer, room: 4_096) {
        case .bytes:
            let answer = self.answer
            if answer.isEmpty { stream.close() } else { stream.send(answer.span) }
        case .wouldBlock: break
        case .endOfFile, .failed: stream.close()
        }
    }
    func streamDrained(_ stream: Stream) {}
    func streamFailed(_ stream: Stream, _ error: SystemError) { stream.close() }
    func streamDeadlinePassed(_ stream: Stream) {}
}
