import LinuxIO
import Primitives
import TestSupport
import Testing

@Suite("Hot keys, and who is none of it", .serialized)
struct HotKeyTests {
    private static func executed(_ redis: RedisTestClient) throws -> Int {
        let statistics = try redis("INFO", "commandstats")
        let calls = statistics.split(separator: "cmdstat_exec:calls=").dropFirst().first?.prefix { $0.isNumber } ?? ""
        return Int(calls) ?? 0
    }

    @Test("a client at a hundred times its limit costs Redis no more than a transaction for each slot that frees")
    func hot() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            var file = File([backend])
            file.rateLimit =
                "policies: [{name: hot, limit: 10, window: 1s}], timeout: 5s, redisURL: \"redis://127.0.0.1:\(redis.port)\""
            let node = try scene.node(file)
            try LimitTests.reached([node])
            let client = try redis.client()
            let wire = try node.connect()
            let request = "GET / HTTP/1.1\r\nHost: test\r\n\r\n"
            func ask(_ count: Int) throws -> Int {
                try wire.send(String(repeating: request, count: count))
                return try (0..<count).map { _ in try wire.readResponse() }.count { $0.status == 200 }
            }
            #expect(try ask(20) == 10)
            try client("CONFIG", "RESETSTAT")
            let begin = SystemClock.monotonic()
            var (asked, admitted) = (0, 0)
            while SystemClock.monotonic() - begin < .seconds(3) || asked < 3_000 {
                admitted += try ask(50)
                asked += 50
            }
            let seconds = (SystemClock.monotonic() - begin).seconds
            let executed = try Self.executed(client)
            // A slot frees with each admission of a second before. Beside that: heartbeats, and a look at the marker ten
            // times a second.
            let others = Int(seconds * 20) + 10
            #expect(executed <= 2 * admitted + others, "\(executed) for \(admitted) of \(asked) in \(seconds) s")
            #expect(Double(admitted) <= 10 * (seconds + 1))
            print("\(asked) asked, \(admitted) admitted, \(executed) transactions in \(seconds) s")
        }
    }

    @Test(
        "while Redis hangs or its processor is busy, a service that no policy covers answers at once",
        arguments: [false, true])
    func unlimited(busy: Bool) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            var file = File([
                File.Service(name: "limited", path: "/limited", urls: [backend.url]),
                File.Service(name: "free", path: "/free", urls: [backend.url]),
            ])
            file.rateLimit =
                "policies: [{name: a, limit: 1000, window: 1s, services: [limited]}], timeout: 10s, "
                + "redisURL: \"redis://127.0.0.1:\(redis.port)\""
            let node = try scene.node(file)
            try LimitTests.reached([node])
            let waiting = try node.connect()
            let script = try BlockingSocket(unix: redis.socketPath)
            if busy {
                try redis.client()("CONFIG", "SET", "lua-time-limit", "60000")
                let before = try redis.processorTime()
                try script.send(Array("EVAL \"for i = 1, 1e12 do end\" 0\r\n".utf8).span)
                try eventually("its processor is busy") { try redis.processorTime() - before > .milliseconds(100) }
            } else {
                redis.pause()
            }
            defer { if !busy { redis.resume() } }
            try waiting.send("GET /limited HTTP/1.1\r\nHost: test\r\n\r\n")
            let free = try node.connect()
            for _ in 0..<200 {
                try free.send("GET /free HTTP/1.1\r\nHost: test\r\n\r\n")
                #expect(try free.readResponse().status == 200)
            }
            // The one that is limited still waits for Redis.
            #expect(backend.requests.count == 200)
            // The loss rule lets it in where the server is gone.
            if busy { redis.kill() } else { redis.resume() }
            #expect(try waiting.readResponse().status == 200)
        }
    }
}
