// A limiter whose answers are garbled on the way: replies are lost, doubled, invented or cut. Whatever happens, nobody is
// admitted by an answer that was not theirs.

import EventLoop
import Hiredis
import Identity
import LinuxIO
import Primitives
import RateLimiting
import RedisClient
import TestSupport
import Testing

/// Where a RESP value that begins at `start` ends; `nil` where it is not whole.
private func valueEnd(_ bytes: [UInt8], _ start: Int) -> Int? {
    var i = start
    while i + 1 < bytes.count, bytes[i] != 0x0d || bytes[i + 1] != 0x0a { i += 1 }
    guard i + 1 < bytes.count, start < i else { return nil }
    let number = Int(String(decoding: bytes[(start + 1)..<i], as: UTF8.self)) ?? 0
    i += 2
    switch bytes[start] {
    case UInt8(ascii: "$"):
        guard number >= 0 else { return i }
        return i + number + 2 <= bytes.count ? i + number + 2 : nil
    case UInt8(ascii: "*"):
        for _ in 0..<max(0, number) {
            guard let end = valueEnd(bytes, i) else { return nil }
            i = end
        }
        return i
    default: return i
    }
}

/// Stands between a limiter and its server.
private final class Garbler: ListenerHandler {
    let loop: Loop
    let server: RedisServer
    var random: SplitMix64
    var garbled = 0
    var isOn = false
    var connections = 0

    init(_ loop: Loop, _ server: RedisServer, seed: UInt64) {
        self.loop = loop
        self.server = server
        random = SplitMix64(seed: seed)
    }

    func accepted(_ connection: consuming Accepted, by listener: Listener) {
        guard let upstream = try? BlockingSocket(unix: server.socketPath) else { return }
        connections += 1
        _ = try? loop.adopt(connection.take(), handler: Pipe(self, upstream))
    }
    func acceptPaused(_ listener: Listener, _ error: SystemError) {}

    /// What becomes of a reply.
    func garble(_ reply: ArraySlice<UInt8>) -> [UInt8] {
        guard isOn, Int.random(in: 0..<400, using: &random) == 0 else { return Array(reply) }
        garbled += 1
        switch Int.random(in: 0..<6, using: &random) {
        case 0: return []
        case 1: return Array(reply) + Array(reply)
        case 2: return Array(":1\r\n".utf8) + Array(reply)
        case 3: return Array("+OK\r\n".utf8) + Array(reply)
        case 4: return Array(reply.prefix(reply.count / 2)) + Array("\r\n".utf8)
        default: return Array("-ERR garbled\r\n".utf8)
        }
    }
}

private final class Pipe: StreamHandler {
    private let garbler: Garbler
    private let upstream: BlockingSocket
    private var asked: [UInt8] = []
    private var answers: [UInt8] = []

    init(_ garbler: Garbler, _ upstream: BlockingSocket) {
        self.garbler = garbler
        self.upstream = upstream
    }

    func streamConnected(_ stream: Stream) {}
    func streamReadable(_ stream: Stream) {
        while stream.mayHaveBytes {
            var buffer = ByteBuffer()
            switch stream.receive(into: &buffer, room: 65_536) {
            case .bytes: asked += buffer.array
            case .wouldBlock: return
            case .endOfFile, .failed:
                stream.close()
                return
            }
            pass(stream)
        }
    }

    /// Lets the server execute what has come whole, and passes on its answers, or what is left of them.
    private func pass(_ stream: Stream) {
        var end = 0
        var commands = 0
        while let next = valueEnd(asked, end), next <= asked.count, end < asked.count {
            end = next
            commands += 1
        }
        guard commands > 0 else { return }
        let whole = Array(asked[..<end])
        asked.removeFirst(end)
        guard (try? upstream.send(whole.span)) != nil else { return }
        var output: [UInt8] = []
        var start = 0
        while commands > 0 {
            if start < answers.count, let next = valueEnd(answers, start) {
                output += garbler.garble(answers[start..<next])
                start = next
                commands -= 1
            } else {
                guard let piece = try? upstream.receive(), !piece.isEmpty else { return }
                answers += piece
            }
        }
        answers.removeFirst(start)
        stream.send(output.span)
    }

    func streamDrained(_ stream: Stream) {}
    func streamFailed(_ stream: Stream, _ error: SystemError) { stream.close() }
    func streamDeadlinePassed(_ stream: Stream) {}
}

private final class Client: LimitRequester {
    var answers: [Int] = []
    var admitted: [Int]
    init(subjects: Int) { admitted = Array(repeating: 0, count: subjects) }
    func limitDecided(token: UInt64, verdict: Verdict) {
        answers[Int(token >> 8)] += 1
        if case .admit = verdict { admitted[Int(token & 0xff)] += 1 }
    }
}

@Suite("Answers that are garbled", .timeLimit(.minutes(1)))
struct GarbledStreamTests {
    @Test("nobody is admitted by them, everyone is answered once, and the connection is closed each time")
    func garbled() throws {
        let seed = SystemClock.random64()
        var random = SplitMix64(seed: seed)
        let server = try RedisServer()
        // The loop keeps the garbler, and that the server.
        defer { server.kill() }
        let loop = try Loop(waker: Waker())
        let garbler = Garbler(loop, server, seed: seed)
        let listener = try loop.listen(
            on: ListeningSocket(SocketAddress(ip: .v4Loopback, port: 0), reusePort: false), handler: garbler)
        let limit = 300
        let context = LimiterContext(
            Policy(name: "default", limit: limit, window: .seconds(600), burst: 1), lossRule: .closed,
            timeout: .milliseconds(100), boot: random.next(), seed: random.next())
        let limiter = Limiter(
            context,
            topology: .single(RedisEndpoint(.tcp(host: "127.0.0.1", port: listener.socket.address.port))), worker: 0,
            loop: loop, resolver: Resolver(), name: "test"
        ) { _ in }
        let subjects = (0..<40).map { SubjectKey(IPAddress(v4: UInt32($0) + 1)) }
        let client = Client(subjects: subjects.count)
        let begin = SystemClock.monotonic()
        while garbler.garbled < 40, SystemClock.monotonic() - begin < .seconds(40) {
            garbler.isOn = limiter.isAsking
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                let subject = Int.random(in: subjects.indices, using: &random)
                client.answers.append(0)
                let token = UInt64(client.answers.count - 1) << 8 | UInt64(subject)
                switch limiter.check(subjects[subject], requester: client, token: token) {
                case .pending: break
                case .decided(let verdict): client.limitDecided(token: token, verdict: verdict)
                }
            }
            loop.turn(waitMax: .milliseconds(2))
        }
        limiter.close()
        #expect(garbler.garbled >= 40, "seed \(seed)")
        #expect(garbler.connections > 5, "seed \(seed)")
        #expect(client.answers.allSatisfy { $0 == 1 }, "seed \(seed)")
        let redis = try server.client()
        for (index, subject) in subjects.enumerated() {
            let entries = Int(try redis("ZCARD", "\(context.policy.keyPrefix)\(subject)")) ?? 0
            #expect(client.admitted[index] <= min(entries, limit), "seed \(seed), \(subject)")
        }
        #expect(client.admitted.reduce(0, +) > 0, "seed \(seed)")
    }
}
