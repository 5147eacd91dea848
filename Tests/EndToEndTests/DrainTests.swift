import Glibc
import LinuxIO
import Primitives
import Synchronization
import TestSupport
import Testing

@Suite("The end of a node")
struct DrainTests {
    private static let keep = "GET / HTTP/1.1\r\nHost: test\r\n\r\n"

    @Test("a connection that was used a moment ago is served once more, and told that this is the last answer")
    func lastAnswer() throws {
        try Scene.play { scene in
            let node = try scene.node(File([try scene.backend()]))
            let client = try node.connect()
            try client.send(Self.keep)
            #expect(try client.readResponse().value("Connection") == nil)
            node.process.signal(SIGTERM)
            try eventually("it drains") { node.log.contains(" draining ") }
            try client.send(Self.keep)
            let last = try client.readResponse()
            #expect(last.status == 200 && last.value("Connection") == "close")
            #expect(try client.endsHere())
            #expect(try node.process.waitForExit() == 0)
        }
    }

    @Test("a connection that never brought a byte is closed like one that is idle")
    func silent() throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            file.gateway = "limits: {headerTimeout: 1h}, drain: {timeout: 1h}"
            let node = try scene.node(file)
            let silent = try node.connect()
            // It has been accepted when a later one is answered.
            #expect(try node.ask().status == 200)
            node.process.signal(SIGTERM)
            #expect(try silent.endsHere())
            #expect(try node.process.waitForExit() == 0)
            #expect(node.log.contains(" drained cutOff=0 reason=\"all connections are closed\""))
        }
    }

    @Test("until the delay is over everything is served, and only the readiness says that the node goes")
    func delay() throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            file.gateway = "drain: {delay: 1h}"
            let node = try scene.node(file)
            #expect(try node.admin("/readyz").text.contains("\"reason\":\"serving\""))
            let old = try node.connect()
            node.process.signal(SIGTERM)
            try eventually("it is not ready") { try node.admin("/readyz").status == 503 }
            #expect(try node.admin("/readyz").text.contains("\"reason\":\"draining\""))
            #expect(try node.admin("/healthz").status == 200)
            for client in [old, try node.connect()] {
                for _ in 0..<2 {
                    try client.send(Self.keep)
                    let answer = try client.readResponse()
                    #expect(answer.status == 200 && answer.value("Connection") == nil)
                }
            }
            node.process.signal(SIGINT)
            #expect(try node.process.waitForExit() == 0)
            #expect(node.log.contains("reason=\"told again\""))
        }
    }

    @Test("no connection that was made is reset, whenever the node ends")
    func noReset() throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            file.workers = "2"
            for _ in 0..<5 {
                let node = try scene.node(file)
                let failures = Mutex<[String]>([])
                let answered = Atomic(0)
                let address = node.address
                let clients = (0..<4).map { _ in
                    OSThread(name: "client") {
                        while true {
                            do {
                                let wire = try Wire.connect(to: address)
                                try wire.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                                let status = try wire.readResponse().status
                                if status != 200 { throw ProcessError("\(status)") }
                                answered.add(1, ordering: .relaxed)
                            } catch WireError.system("connect", let number) where number == ECONNREFUSED {
                                return
                            } catch {
                                failures.withLock { $0.append("\(error)") }
                                return
                            }
                        }
                    }
                }
                try eventually("requests are under way") { answered.load(ordering: .relaxed) > 20 }
                node.process.signal(SIGTERM)
                for client in clients { client.join() }
                #expect(failures.withLock { $0 } == [])
                #expect(try node.process.waitForExit() == 0)
            }
        }
    }

    @Test("a WebSocket hears 1001 behind the frame that is on its way, and nothing after it")
    func goingAway() throws {
        try Scene.play { scene in
            let mayEnd = Waiter()
            defer { mayEnd.signal() }
            let heard = Mutex<[UInt8]>([])
            let backend = try TunnelScene.backend(scene) { _, wire in
                guard try wire.read(1) == [1] else {
                    _ = try wire.readToEnd()
                    return
                }
                // Two frames, of which the second is not complete, whose payload looks like frames.
                try wire.send([0x82, 1, 0x88, 0x82, 6, 0x88, 0x02])
                mayEnd.wait()
                try wire.send([0x03, 0xe9, 0x88, 0x00, 0x81, 1, 65])
                let answer = try wire.read(8)
                heard.withLock { $0 = answer }
            }
            var file = File([backend])
            file.gateway = "drain: {timeout: 4s}"
            let node = try scene.node(file)
            let silent = try TunnelScene.open(node)
            try silent.send([0])
            let client = try TunnelScene.open(node)
            try client.send([1])
            #expect(try client.read(7) == [0x82, 1, 0x88, 0x82, 6, 0x88, 0x02])
            node.process.signal(SIGTERM)
            // The last that came is told first: who hears it now is the other one.
            #expect(try silent.read(4) == [0x88, 0x02, 0x03, 0xe9])
            silent.close()
            mayEnd.signal()
            #expect(try client.read(4) == [0x03, 0xe9, 0x88, 0x00])
            #expect(try client.read(4) == [0x88, 0x02, 0x03, 0xe9])
            let reply: [UInt8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]
            try client.send(reply)
            #expect(try client.endsHere())
            client.close()
            #expect(try node.process.waitForExit() == 0)
            #expect(heard.withLock { $0 } == reply)
            #expect(node.log.contains("all connections are closed"))
        }
    }

    @Test("a node leaves the cluster when it accepts nothing more, not when its last request has ended")
    func leaves() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let mayAnswer = Waiter()
            defer { mayAnswer.signal() }
            let backend = try scene.backend {
                mayAnswer.wait()
                try $0.answer("done")
                return .keep
            }
            var file = File([backend])
            file.rateLimit = "requestsPerSecond: 100, redisURL: \"redis://127.0.0.1:\(redis.port)\""
            let node = try scene.node(file, ["--node-id", "one"])
            let database = try redis.client()
            try eventually("it has joined") { try database("ZSCORE", "sluice:nodes", "one") != "nil" }
            let client = try node.connect()
            try client.send(Self.keep)
            try eventually("it is in flight") { backend.requests.count == 1 }
            node.process.signal(SIGTERM)
            try eventually("it has left") { try database("ZCARD", "sluice:nodes").contains("0") }
            mayAnswer.signal()
            #expect(try client.readResponse().text == "done")
            #expect(try node.process.waitForExit() == 0)
            #expect(try database("ZCARD", "sluice:nodes").contains("0"))
        }
    }
}
