import Primitives
import TestSupport
import Testing

@Suite("Retries")
struct RetryTests {
    /// A backend that reads a request and closes.
    private static func closing(_ scene: Scene) throws -> RecordingBackend { try scene.backend { _ in .close } }

    private static func file(_ backends: [RecordingBackend], _ more: String = "") -> File {
        var file = File(backends, more)
        // Every request is to find its way by itself: nobody is ejected.
        file.services[0].health = "active: false, failures: 1000"
        return file
    }

    @Test("a request that may have been acted on goes once to another backend, if its method allows, and no further")
    func once() throws {
        try Scene.play { scene in
            let backends = try (0..<3).map { _ in try Self.closing(scene) }
            let node = try scene.node(Self.file(backends))
            func sent() -> Int { backends.map(\.requests.count).reduce(0, +) }
            #expect(try node.ask("GET / HTTP/1.1").status == 502)
            #expect(sent() == 2)
            #expect(backends.filter { !$0.requests.isEmpty }.count == 2)
            #expect(try node.ask("PUT / HTTP/1.1", fields: "Content-Length: 1\r\n", body: "x").status == 502)
            #expect(sent() == 4)
            #expect(try node.ask("POST / HTTP/1.1", fields: "Content-Length: 1\r\n", body: "x").status == 502)
            #expect(sent() == 5)
        }
    }

    @Test("what failed on one backend succeeds on the other", arguments: ["round_robin", "consistent_hash"])
    func succeeds(strategy: String) throws {
        try Scene.play { scene in
            let closing = try Self.closing(scene)
            let well = try scene.backend(named: "well")
            let node = try scene.node(Self.file([closing, well], "strategy: \(strategy), hashOn: path"))
            for i in 0..<10 { #expect(try node.ask("GET /\(i) HTTP/1.1").text == "well") }
            #expect(!closing.requests.isEmpty)
        }
    }

    @Test("interim answers are no answer: a request goes on to another backend behind them")
    func interim() throws {
        try Scene.play { scene in
            let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
            let closing = try scene.backend { exchange in
                try exchange.wire.send(hints)
                return .close
            }
            let well = try scene.backend { exchange in
                try exchange.wire.send(hints)
                try exchange.answer("well")
                return .keep
            }
            let node = try scene.node(Self.file([closing, well]))
            for _ in 0..<4 {
                let client = try node.connect()
                try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                var head = try #require(try client.readHead())
                var hintsSeen = 0
                while head.status == 103 {
                    hintsSeen += 1
                    head = try #require(try client.readHead())
                }
                #expect(head.status == 200)
                #expect((1...2).contains(hintsSeen))
                #expect(try client.read(4) == Array("well".utf8))
            }
            #expect(!closing.requests.isEmpty)
        }
    }

    @Test("a service without retries has none, not even where nothing was sent", arguments: ["0", "{attempts: 0}"])
    func off(retries: String) throws {
        try Scene.play { scene in
            let dead = try scene.backend()
            dead.stop()
            let closing = try Self.closing(scene)
            let well = try scene.backend(named: "well")
            let node = try scene.node(Self.file([dead, closing, well], "retries: \(retries)"))
            #expect(try (0..<3).map { _ in try node.ask().status } == [502, 502, 200])
            #expect(closing.requests.count == 1)
        }
    }

    @Test("a pooled connection that has died is replaced, with or without retries")
    func stale() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                if exchange.number == 1 { return .close }
                try exchange.answer("ok")
                return .keep
            }
            let node = try scene.node(Self.file([backend], "retries: 0"))
            for _ in 0..<4 { #expect(try node.ask().text == "ok") }
        }
    }

    @Test("refused connections lead on to the next backend until one accepts")
    func refused() throws {
        try Scene.play { scene in
            let dead = try (0..<4).map { _ in try scene.freePort().url }
            let well = try scene.backend(named: "well")
            var file = Self.file([well], "retries: {minimum: 100}")
            file.services[0].urls = dead + file.services[0].urls
            let node = try scene.node(file)
            for _ in 0..<5 { #expect(try node.ask("POST / HTTP/1.1").text == "well") }
        }
    }

    @Test("retries stop where their budget ends, so that an outage is not multiplied")
    func budget() throws {
        try Scene.play { scene in
            let closing = try (0..<2).map { _ in try Self.closing(scene) }
            let node = try scene.node(Self.file(closing, "retries: {budget: 10%, minimum: 3}"))
            for _ in 0..<50 { #expect(try node.ask().status == 502) }
            // Of 50 requests 10 %, of which 3 were free from the beginning; fewer seconds than ten have passed.
            #expect(closing.map(\.requests.count).reduce(0, +) == 55)
            // Operators hear of it: at once in the log, and as counts.
            try eventually("the log says so") {
                node.log.contains("warning the retry budget is used up count=1 service=main")
            }
            let counts = try node.admin("/api/retries").text
            // Where the other backend is judged down meanwhile, nothing is asked of the budget.
            #expect(counts.contains("\"retries\":5") && !counts.contains("\"denied\":0"), "\(counts)")
        }
    }

    @Test("nothing is sent twice once a byte of the answer has gone out")
    func afterTheAnswerBegan() throws {
        try Scene.play { scene in
            let backends = try (0..<2).map { _ in
                try scene.backend { exchange in
                    try exchange.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
                    return .close
                }
            }
            let node = try scene.node(Self.file(backends))
            let client = try node.connect()
            try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(throws: WireError.self) { try client.readResponse() }
            #expect(backends.map(\.requests.count).reduce(0, +) == 1)
        }
    }

    @Test("a connection that is not made in time leads on once, and not after the time for all tries")
    func connectTimeout() throws {
        try Scene.play { scene in
            let silent = try (0..<2).map { _ in try SilentListener() }
            let well = try scene.backend(named: "well")
            func answer(_ urls: [String], _ retries: String) throws -> WireMessage {
                var file = File([File.Service(urls: urls, more: "timeouts: {connect: 100ms}, retries: \(retries)")])
                file.services[0].health = "active: false, failures: 1000"
                return try scene.node(file).ask("POST / HTTP/1.1")
            }
            #expect(try answer([silent[0].url, well.url], "{within: 10s}").text == "well")
            #expect(try answer([silent[0].url, well.url], "{within: 10ms}").status == 504)
            let urls = silent.map(\.url)
            let late = try answer(urls, "{attempts: 1}")
            #expect(late.status == 504)
            #expect(problemTitle(late) == "Gateway timeout")
            #expect(well.requests.count == 1)
        }
    }
}
