import Primitives
import Synchronization
import TestSupport
import Testing

@Suite("Messages pass through a node")
struct MessageTests {
    @Test("a connection serves one request after the other, over one backend connection")
    func keepAlive() throws {
        try Scene.play { scene in
            let backend = try scene.backend {
                try $0.answer($0.request.target)
                return .keep
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            for i in 0..<10 {
                try client.send("GET /\(i) HTTP/1.1\r\nHost: test\r\n\r\n")
                #expect(try client.readResponse().text == "/\(i)")
            }
            #expect(backend.connections == 1)
        }
    }

    @Test("pipelined requests are answered in order, whatever their answers cost")
    func pipelining() throws {
        try Scene.play { scene in
            let backend = try scene.backend {
                try $0.answer("\($0.request.target) \($0.request.text)")
                return .keep
            }
            let file = File([
                File.Service(name: "main", path: "/a", urls: [backend.url], more: "stripPrefix: false")
            ])
            let node = try scene.node(file)
            let client = try node.connect()
            var all = ""
            for i in 0..<30 {
                switch i % 3 {
                case 0: all += "GET /a/\(i) HTTP/1.1\r\nHost: test\r\n\r\n"
                case 1: all += "POST /a/\(i) HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody"
                default: all += "GET /none HTTP/1.1\r\nHost: test\r\n\r\n"
                }
            }
            try client.send(all)
            for i in 0..<30 {
                let answer = try client.readResponse()
                switch i % 3 {
                case 0: #expect(answer.text == "/a/\(i) ")
                case 1: #expect(answer.text == "/a/\(i) body")
                default: #expect(problemTitle(answer) == "Service not found")
                }
            }
        }
    }

    static let sizes = [0, 1, 15, 16, 2_047, 2_048, 2_049, 65_535, 65_536, 65_537, 300_000]

    @Test("bodies with a length arrive byte for byte in both directions", arguments: sizes)
    func lengths(size: Int) throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                let body = exchange.request.body
                try exchange.wire.send("HTTP/1.1 200 OK\r\nContent-Length: \(body.count)\r\n\r\n")
                try exchange.wire.send(body)
                return .keep
            }
            let node = try scene.node(File([backend]))
            let body = Self.bytes(size)
            for method in ["POST", "PUT"] {
                let client = try node.connect()
                for _ in 0..<2 {
                    try client.send("\(method) / HTTP/1.1\r\nHost: test\r\nContent-Length: \(size)\r\n\r\n")
                    try client.send(body)
                    let answer = try client.readResponse()
                    #expect(answer.body == body)
                    #expect(answer.value("Content-Length") == "\(size)")
                }
            }
            #expect(backend.requests.allSatisfy { $0.body == body && $0.value("Content-Length") == "\(size)" })
        }
    }

    @Test(
        "chunked bodies arrive byte for byte in both directions, however they are cut",
        arguments: [1, 7, 4_096, 70_000])
    func chunks(size: Int) throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for chunk in exchange.request.chunks {
                    try exchange.wire.send(String(chunk.count, radix: 16) + ";extension=1\r\n")
                    try exchange.wire.send(chunk + [13, 10])
                }
                try exchange.wire.send("0\r\nX-Trailer: 1\r\n\r\n")
                return .keep
            }
            let node = try scene.node(File([backend]))
            let chunk = Self.bytes(size)
            let client = try node.connect()
            for _ in 0..<2 {
                try client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in 0..<5 {
                    try client.send(String(size, radix: 16) + "\r\n")
                    try client.send(chunk + [13, 10])
                }
                try client.send("0\r\nX-Trailer: 1\r\n\r\n")
                let answer = try client.readResponse()
                #expect(answer.body == Array([[UInt8]](repeating: chunk, count: 5).joined()))
                #expect(answer.value("Transfer-Encoding") == "chunked")
                #expect(answer.value("Content-Length") == nil)
            }
            #expect(
                backend.requests.allSatisfy { $0.body.count == 5 * size && $0.value("Transfer-Encoding") == "chunked" })
            #expect(backend.connections == 1)
        }
    }

    @Test("a request that arrives byte by byte is one request")
    func byteByByte() throws {
        try Scene.play { scene in
            let backend = try scene.backend {
                try $0.answer($0.request.text)
                return .keep
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            let request =
                "POST /x HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            for _ in 0..<2 {
                for byte in request.utf8 { try client.send([byte]) }
                #expect(try client.readResponse().text == "abcde")
            }
            #expect(backend.requests.map(\.text) == ["abcde", "abcde"])
        }
    }

    @Test("an answer that arrives byte by byte is one answer")
    func answerByteByByte() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                for byte in "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: b\r\n\r\nabc".utf8 {
                    try exchange.wire.send([byte])
                }
                return .keep
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            for _ in 0..<2 {
                try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                let answer = try client.readResponse()
                #expect(answer.text == "abc")
                #expect(answer.value("X-A") == "b")
            }
        }
    }

    @Test("an answer without framing ends with its connection: chunked for HTTP/1.1, by closing for HTTP/1.0")
    func untilClose() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.wire.send("HTTP/1.1 200 OK\r\n\r\nall there is")
                return .close
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            for _ in 0..<2 {
                try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                let answer = try client.readResponse()
                #expect(answer.value("Transfer-Encoding") == "chunked")
                #expect(answer.text == "all there is")
            }
            let old = try node.connect()
            try old.send("GET / HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n")
            let answer = try old.readResponse()
            #expect(answer.values("Transfer-Encoding").isEmpty)
            #expect(answer.value("Connection") == "close")
            #expect(answer.text == "all there is")
        }
    }

    @Test("an answer that breaks off reaches nobody as a whole")
    func brokenAnswer() throws {
        try Scene.play { scene in
            let framings = ["Content-Length: 100\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"]
            let backend = try scene.backend { exchange in
                let framing = framings[exchange.request.target == "/length" ? 0 : 1]
                try exchange.wire.send("HTTP/1.1 200 OK\r\n\(framing)")
                return .close
            }
            let node = try scene.node(File([backend]))
            for target in ["/length", "/chunked"] {
                let client = try node.connect()
                try client.send("GET \(target) HTTP/1.1\r\nHost: test\r\n\r\n")
                #expect(throws: WireError.self) { try client.readResponse() }
            }
        }
    }

    private final class Flag: Sendable {
        let isUp = Atomic<Bool>(false)
    }

    @Test("of an answer whose framing breaks, what was good reaches the client, and then the connection breaks")
    func goodUntilBroken() throws {
        try Scene.play { scene in
            let mayBreak = Flag()
            let backend = try scene.backend { exchange in
                try exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
                try eventually("the client has that") { mayBreak.isUp.load(ordering: .relaxed) }
                try exchange.wire.send("3\r\ndef\r\nno chunk\r\n")
                return .close
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try client.readHead()?.status == 200)
            #expect(try client.read(8) == Array("3\r\nabc\r\n".utf8))
            mayBreak.isUp.store(true, ordering: .relaxed)
            #expect(try client.read(8) == Array("3\r\ndef\r\n".utf8))
            #expect(throws: WireError.self) { try client.read(1) }
        }
    }

    static func bytes(_ count: Int) -> [UInt8] {
        var generator = SplitMix64(seed: UInt64(count))
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        while bytes.count < count { bytes.append(UInt8(truncatingIfNeeded: generator.next())) }
        return bytes
    }
}
