import Glibc
import Primitives
import TestSupport
import Testing

@Suite("Hostile input")
struct HostileTests {
    /// One seed replays a run: SLUICE_TEST_SEED.
    private static func seed() -> UInt64 {
        let given = unsafe getenv("SLUICE_TEST_SEED").flatMap { unsafe UInt64(String(cString: $0)) }
        let seed = given ?? UInt64.random(in: .min ... .max)
        print("SLUICE_TEST_SEED=\(seed)")
        return seed
    }

    private static let requests = [
        "GET /a/b?c=d HTTP/1.1\r\nHost: test\r\nUser-Agent: x\r\nCookie: a=b; c=d\r\nX-Forwarded-For: 10.0.0.1, 2001:db8::1\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\nhello world",
        "PUT /a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n",
        "GET http://test:80/a HTTP/1.1\r\nHost: test:80\r\nConnection: close, x\r\nX: 1\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\nHEAD /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ]
    private static let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, keep-alive\r\nX: 1\r\n\r\nhello",
        "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
        "HTTP/1.0 404 Not Found\r\n\r\nuntil the end",
        "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
    ]

    /// Bytes changed, removed, doubled, inserted or cut off.
    private static func mutate(_ text: String, _ generator: inout SplitMix64) -> [UInt8] {
        var bytes = Array(text.utf8)
        let spice: [UInt8] = [0, 9, 10, 13, 32, 44, 45, 48, 57, 58, 59, 127, 128, 255]
        for _ in 0..<Int.random(in: 1...4, using: &generator) where !bytes.isEmpty {
            let place = Int.random(in: 0..<bytes.count, using: &generator)
            let byte =
                Bool.random(using: &generator)
                ? spice.randomElement(using: &generator)! : UInt8.random(in: 0...255, using: &generator)
            switch Int.random(in: 0..<5, using: &generator) {
            case 0: bytes[place] = byte
            case 1: bytes.remove(at: place)
            case 2: bytes.insert(byte, at: place)
            case 3: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + 20)], at: place)
            default: bytes.removeSubrange(place...)
            }
        }
        return bytes
    }

    @Test("whatever clients and backends send, the node lives, serves, and gives back its descriptors")
    func random() throws {
        let seed = Self.seed()
        try Scene.play { scene in
            let broken = scene.add(
                try RecordingBackend(serving: { _, wire, number in
                    var generator = SplitMix64(seed: seed &+ UInt64(number))
                    while try wire.readHead() != nil {
                        let answer = Self.answers.randomElement(using: &generator)!
                        try wire.send(
                            Bool.random(using: &generator) ? Array(answer.utf8) : Self.mutate(answer, &generator))
                        if Bool.random(using: &generator) { return }
                    }
                }))
            let good = try scene.backend(named: "good")
            var file = File([
                File.Service(
                    name: "broken", path: "/a", urls: [broken.url], more: "timeouts: {response: 200ms, idle: 200ms}",
                    health: "active: false, failures: 1000"),
                File.Service(name: "good", path: "/good", urls: [good.url], more: "pool: {idle: 0}"),
            ])
            file.workers = "2"
            file.gateway =
                "trustedProxies: [\"127.0.0.0/8\"], limits: {headerTimeout: 300ms, bodyTimeout: 300ms, idleTimeout: 300ms}"
            file.rateLimit = "requestsPerSecond: 1000000"
            let node = try scene.node(file)
            let before = node.process.descriptorCount
            #expect(before > 0)
            #expect(try node.ask("GET /good HTTP/1.1").text == "good")
            var generator = SplitMix64(seed: seed)
            for round in 0..<400 {
                let client = try node.connect()
                let bytes: [UInt8]
                switch round % 4 {
                case 0:
                    bytes = (0..<Int.random(in: 1...300, using: &generator)).map { _ in
                        UInt8.random(in: 0...255, using: &generator)
                    }
                case 1: bytes = Array(Self.requests.randomElement(using: &generator)!.utf8)
                default: bytes = Self.mutate(Self.requests.randomElement(using: &generator)!, &generator)
                }
                // The node may have closed already: that is an answer too.
                try? client.send(bytes)
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: client.resetOnClose()
                case 1:
                    client.endSending()
                    _ = try? client.readToEnd()
                case 2: _ = try? client.readToEnd()
                default: break
                }
                if let code = node.process.exit {
                    Issue.record("the node ended with \(code) in round \(round) of seed \(seed)")
                    return
                }
            }
            #expect(try node.ask("GET /good HTTP/1.1").text == "good", "seed \(seed)")
            try eventually("all descriptors are given back (seed \(seed))") { node.process.descriptorCount <= before }
        }
    }

    @Test("many idle connections cost descriptors, and closing them gives all back")
    func manyConnections() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([backend]))
            let before = node.process.descriptorCount
            #expect(before > 0)
            for _ in 0..<3 {
                var clients: [Wire] = []
                for _ in 0..<200 { clients.append(try node.connect()) }
                // A probe may have been under way when `before` was counted.
                try eventually("all are accepted") { node.process.descriptorCount >= before + 190 }
                for client in clients.prefix(50) { try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n") }
                for client in clients.prefix(50) { #expect(try client.readResponse().status == 200) }
            }
            try eventually("the clients' are given back") {
                node.process.descriptorCount <= before + backend.connections
            }
            #expect(try node.ask().status == 200)
        }
    }
}
