import Primitives
import TestSupport
import Testing

@Suite("Names of requests through a node")
struct RequestIDTests {
    private static func isMade(_ text: String?) -> Bool {
        guard let text else { return false }
        return text.utf8.count == 32 && text.allSatisfy { $0.isHexDigit && !$0.isUppercase }
    }

    @Test("off, nothing is made, and what a client says goes through")
    func off() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([backend]))
            #expect(try node.ask().values("X-Request-Id").isEmpty)
            _ = try node.ask(fields: "X-Request-Id: <any thing>\r\n")
            #expect(backend.requests.map { $0.values("X-Request-Id") } == [[], ["<any thing>"]])
        }
    }

    @Test("one is made where there is none, and the backend, the client and the log hear the same")
    func made() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.answer("ok", fields: "x-request-id: of the backend\r\nX-Other: 1\r\n")
                return .keep
            }
            var file = File([backend])
            file.gateway = "requestID: true"
            let node = try scene.node(file, ["--set", "gateway.accessLog=true"])
            let wire = try node.connect()
            var names: [String] = []
            for _ in 0..<3 {
                try wire.send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n")
                let answer = try wire.readResponse()
                #expect(answer.text == "ok" && answer.value("X-Other") == "1")
                let said = answer.values("X-Request-Id")
                #expect(said.count == 1 && Self.isMade(said.first))
                names += said
            }
            #expect(Set(names).count == 3)
            #expect(backend.requests.map { $0.values("X-Request-Id") } == names.map { [$0] })
            #expect(try node.terminate() == 0)
            let lines = node.output.split(separator: "\n")
            #expect(lines.map { $0.split(separator: " ").last.map(String.init) } == names.map { "id=\($0)" })
        }
    }

    @Test(
        "a client's own is kept where it can be",
        arguments: [
            ("X-Request-Id: 3fe5c1b2-8b1f-4b4a-9d68-1c5ad1b2f001\r\n", true),
            ("x-request-ID:a.b_c:d/e+f=g@h~\r\n", true),
            ("X-Request-Id: \r\n", false), ("X-Request-Id: a b\r\n", false), ("X-Request-Id: a\"b\r\n", false),
            ("X-Request-Id: <script>\r\n", false), ("X-Request-Id: \u{1b}[31m\r\n", false),
            ("X-Request-Id: \(String(repeating: "x", count: 129))\r\n", false), ("X-Request-Id: é\r\n", false),
            // Two are none: a backend might read the other one.
            ("X-Request-Id: a\r\nX-Request-Id: a\r\n", false), ("X_Request_Id: a\r\n", false),
        ])
    func kept(fields: String, isKept: Bool) throws {
        // A control character is no part of any field.
        let isHTTP = !fields.contains("\u{1b}")
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            file.gateway = "requestID: true"
            let node = try scene.node(file)
            let answer = try node.ask(fields: fields)
            let said = try #require(answer.value("X-Request-Id"))
            #expect(answer.status == (isHTTP ? 200 : 400))
            #expect(Self.isMade(said) == !isKept)
            if isHTTP {
                let request = try #require(backend.requests.first)
                #expect(request.values("X-Request-Id") == [said] && request.values("X_Request_Id").isEmpty)
            }
        }
    }

    @Test("another header has the name, in the words of whom is believed, and answers keep silent where wanted")
    func options() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.answer("ok", fields: "X-Trace-Key: backend\r\n")
                return .keep
            }
            var file = File([backend])
            file.gateway = "requestID: {header: X-Trace-Key, accept: trusted}, trustedProxies: [127.0.0.2/32]"
            let node = try scene.node(file)
            let near = try #require(IPAddress("127.0.0.2"))
            let fields = "x-trace-key: abc\r\nX_Trace_Key: evil\r\nX-Request-Id: other\r\n"
            #expect(try node.ask(fields: fields, from: near).values("X-Trace-Key") == ["abc"])
            let stranger = try node.ask(fields: fields).values("X-Trace-Key")
            #expect(stranger.count == 1 && Self.isMade(stranger.first))
            let requests = backend.requests
            #expect(requests.map { $0.values("X-Trace-Key") } == [["abc"], stranger])
            #expect(requests.allSatisfy { $0.values("X_Trace_Key").isEmpty && $0.values("X-Request-Id") == ["other"] })

            file.gateway = "requestID: {accept: none, respond: false}"
            try node.reload(file.yaml)
            let silent = try node.ask(fields: "X-Request-Id: mine\r\n")
            #expect(silent.values("X-Request-Id").isEmpty && silent.values("X-Trace-Key") == ["backend"])
            #expect(Self.isMade(backend.requests.last?.value("X-Request-Id")))

            file.gateway = ""
            try node.reload(file.yaml)
            #expect(try node.ask(fields: "X-Request-Id: mine\r\n").values("X-Request-Id").isEmpty)
            #expect(backend.requests.last?.value("X-Request-Id") == "mine")
        }
    }

    @Test("what the gateway answers by itself has the name too, and problems say it")
    func own() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([
                File.Service(
                    name: "a", path: "/a", urls: [backend.url],
                    more:
                        "transforms: {redirects: [{prefix: /a/old, to: /a/new}], request: {set: {X-Name: \"<{requestID}>\"}}, "
                        + "response: {set: {X-Said: \"{requestID}\"}}}")
            ])
            file.gateway = "requestID: true"
            let node = try scene.node(file)
            let rows = [
                ("GET /none HTTP/1.1", 404), ("GET /a/%00 HTTP/1.1", 400), ("GET /a/old HTTP/1.1", 308),
                ("OPTIONS * HTTP/1.1", 200),
            ]
            for (line, status) in rows {
                let answer = try node.ask(line, fields: "X-Request-Id: it-\(status)\r\n")
                #expect(answer.status == status)
                #expect(answer.values("X-Request-Id") == ["it-\(status)"])
                if status >= 400 { #expect(answer.text.contains(",\"requestID\":\"it-\(status)\"}")) }
            }
            // A head that nobody understands has a name of ours.
            let broken = try node.ask("nonsense")
            let name = try #require(broken.value("X-Request-Id"))
            #expect(broken.status == 400 && Self.isMade(name) && broken.text.contains("\"requestID\":\"\(name)\""))
            let answer = try node.ask("GET /a/x HTTP/1.1", fields: "X-Request-Id: seven\r\n")
            #expect(answer.value("X-Said") == "seven")
            #expect(backend.requests.last?.value("X-Name") == "<seven>")
        }
    }

    @Test("a request that is sent again has the name that it had")
    func retried() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let breaking = try scene.backend { _ in .close }
            var file = File([breaking, backend])
            file.gateway = "requestID: true"
            let node = try scene.node(file)
            var said: [String] = []
            for _ in 0..<4 { said += try node.ask().values("X-Request-Id") }
            #expect(Set(said).count == 4)
            let asked = backend.requests.flatMap { $0.values("X-Request-Id") }
            #expect(asked == said)
            #expect(breaking.requests.allSatisfy { asked.contains($0.value("X-Request-Id") ?? "") })
            #expect(!breaking.requests.isEmpty)
        }
    }
}
