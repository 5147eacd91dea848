import Primitives
import TestSupport
import Testing

@Suite("Several policies through nodes", .serialized)
struct PolicyTests {
    private static func file(_ backend: RecordingBackend, _ policies: String, _ redis: RedisServer?) -> File {
        var file = File([
            File.Service(name: "api", path: "/api", urls: [backend.url]),
            File.Service(name: "auth", path: "/auth", urls: [backend.url]),
        ])
        let url = redis.map { ", timeout: 5s, redisURL: \"redis://127.0.0.1:\($0.port)\"" } ?? ""
        file.rateLimit = "policies: [\(policies)]\(url)"
        file.gateway = "trustedProxies: [\"127.0.0.1/32\"]"
        return file
    }

    /// Requests on one connection, all at once.
    private static func burst(
        _ count: Int, _ path: String = "/api", to node: SluiceNode, as client: String, _ fields: String = ""
    ) throws -> [WireMessage] {
        let wire = try node.connect()
        let request = "GET \(path) HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: \(client)\r\n\(fields)\r\n"
        try wire.send(String(repeating: request, count: count))
        return try (0..<count).map { _ in try wire.readResponse() }
    }

    private static func admitted(_ answers: [WireMessage]) -> Int { answers.count { $0.status == 200 } }

    @Test("over two nodes, a request that one policy refuses leaves nothing in the window of another")
    func together() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            let policies =
                "{name: client, limit: 50, window: 1h}, {name: total, limit: 20, window: 1h, key: global}"
            let file = Self.file(backend, policies, redis)
            let nodes = [try scene.node(file, ["--node-id", "a"]), try scene.node(file, ["--node-id", "b"])]
            try LimitTests.reached(nodes)
            var admitted: [String: Int] = [:]
            var refusal: WireMessage?
            for round in 0..<20 {
                let client = "192.0.2.\(1 + round % 3)"
                let answers = try Self.burst(10, to: nodes[round % 2], as: client)
                admitted[client, default: 0] += Self.admitted(answers)
                refusal = answers.last { $0.status == 429 } ?? refusal
            }
            let redisClient = try redis.client()
            #expect(admitted.values.reduce(0, +) == 20)
            #expect(backend.requests.count == 20)
            #expect(try redisClient("ZCARD", "rate_limit:total:20/1h:global") == "20")
            for (client, count) in admitted {
                try eventually("\(client) is charged \(count) times and no more") {
                    try redisClient("ZCARD", "rate_limit:client:50/1h:ip:\(client)") == "\(count)"
                }
            }
            let refused = try #require(refusal)
            #expect(problemTitle(refused) == "Rate limit exceeded")
            #expect(refused.text.contains("\"violated-policies\":[\"total\"]"))
            #expect(refused.value("RateLimit-Policy")?.contains("\"total\";q=20;w=3600") == true)
            let wait = try #require(refused.value("Retry-After").flatMap { Int($0) })
            #expect(wait > 3_500 && wait <= 3_630)
            #expect(refused.value("RateLimit") == "\"total\";r=0;t=\(wait)")
        }
    }

    @Test("each kind of key, services and paths; no spelling of a path leads past its limit", arguments: [true, false])
    func keys(withRedis: Bool) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            let node = try scene.node(
                Self.file(
                    backend,
                    """
                    {name: login, limit: 2, window: 1h, services: [auth], paths: [/auth/login]}, \
                    {name: tenant, limit: 3, window: 1h, key: \"header:X-Tenant\", services: [api]}, \
                    {name: auth, limit: 6, window: 1h, key: service, services: [auth]}
                    """, withRedis ? redis : nil))
            if withRedis { try LimitTests.reached([node]) }
            // Two log in, however they spell it; the path beside it is not covered.
            #expect(Self.admitted(try Self.burst(2, "/auth/login", to: node, as: "192.0.2.1")) == 2)
            for path in [
                "/auth/login", "/auth/%6cogin", "/auth/login/x", "/auth/login?a=b", "//auth/login", "/auth//login",
                "/auth;x/login;y=z", "/auth/login%2fx", "/auth/login%3bx",
            ] {
                let answer = try Self.burst(1, path, to: node, as: "192.0.2.1")[0]
                #expect(answer.status == 429)
                #expect(answer.text.contains("\"violated-policies\":[\"login\"]"))
            }
            #expect(Self.admitted(try Self.burst(1, "/auth/loginx", to: node, as: "192.0.2.1")) == 1)
            // One of three left for everyone at this service.
            #expect(Self.admitted(try Self.burst(4, "/auth", to: node, as: "192.0.2.2")) == 3)
            // Tenants go by the header, whoever sends it; without it, by the address.
            let acme = "x-tenant: acme co\r\n"
            let long = "X-Tenant: 0123456789abcdef0\r\n"
            #expect(Self.admitted(try Self.burst(2, to: node, as: "192.0.2.1", acme)) == 2)
            #expect(Self.admitted(try Self.burst(2, to: node, as: "192.0.2.2", acme)) == 1)
            #expect(Self.admitted(try Self.burst(4, to: node, as: "192.0.2.2", long)) == 3)
            #expect(Self.admitted(try Self.burst(4, to: node, as: "192.0.2.2")) == 3)
            guard withRedis else { return }
            let keys = try redis.client()("KEYS", "rate_limit:*").dropFirst().dropLast().split(separator: " ")
            let names = keys.map { String($0.dropFirst("'rate_limit:".count).dropLast()) }.sorted()
            #expect(names.count == 5)
            #expect(names.prefix(2) == ["auth:6/1h:service:auth", "login:2/1h:ip:192.0.2.1"])
            #expect(names.contains("tenant:3/1h:header:x-tenant:acme%20co"))
            #expect(names.contains("tenant:3/1h:ip:192.0.2.2"))
            #expect(names.contains { $0.hasPrefix("tenant:3/1h:header:x-tenant:~") })
        }
    }

    @Test(
        "admitted requests are told what remains, old clients too; answers of the gateway's own as well",
        arguments: [true, false])
    func remaining(withRedis: Bool) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            var file = Self.file(
                backend,
                """
                {name: client, limit: 5, window: 1h}, {name: total, limit: 4, window: 1h, key: global}, \
                {name: secret, limit: 2, window: 1h, mode: shadow}
                """, withRedis ? redis : nil)
            file.rateLimit += ", legacyHeaders: true"
            let node = try scene.node(file)
            if withRedis { try LimitTests.reached([node]) }
            let answers = try Self.burst(4, to: node, as: "192.0.2.1")
            #expect(
                answers.map { $0.value("RateLimit") }
                    == (0..<4).map { "\"client\";r=\(4 - $0), \"total\";r=\(3 - $0)" })
            #expect(answers[0].value("RateLimit-Policy") == "\"client\";q=5;w=3600, \"total\";q=4;w=3600")
            #expect(answers.map { $0.value("X-RateLimit-Remaining") } == ["3", "2", "1", "0"])
            #expect(answers[0].value("X-RateLimit-Limit") == "4")
            let refused = try Self.burst(1, to: node, as: "192.0.2.1")[0]
            #expect(refused.status == 429)
            #expect(refused.value("X-RateLimit-Limit") == "4")
            #expect(refused.value("X-RateLimit-Reset") == refused.value("Retry-After"))
            #expect(refused.values("RateLimit-Policy").count == 1)
        }
    }

    @Test("a backend's own X-RateLimit fields give way to the gateway's, and stand where it writes none")
    func legacyOfBackends() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.answer(
                    "ok",
                    fields: "X-RateLimit-Limit: 60\r\nx-ratelimit-remaining: 7\r\nX_RateLimit_Reset: 9\r\n"
                        + "X-RateLimit-Used: 3\r\nX-RateLimits: 5\r\nRateLimit-Remaining: 8\r\n"
                        + "X-Rate-Limit-Limit: 61\r\n")
                return .keep
            }
            var file = Self.file(backend, "{name: client, limit: 5, window: 1h, paths: [/api/limited]}", nil)
            let plain = try scene.node(file)
            file.rateLimit += ", legacyHeaders: true"
            let legacy = try scene.node(file)
            let answer = try legacy.ask("GET /api/limited HTTP/1.1")
            #expect(answer.values("X-RateLimit-Limit") == ["5"] && answer.values("X-RateLimit-Remaining") == ["4"])
            for name in [
                "X-RateLimit-Reset", "X_RateLimit_Reset", "X-RateLimit-Used", "RateLimit-Remaining",
                "X-Rate-Limit-Limit",
            ] {
                #expect(answer.value(name) == nil, "\(name)")
            }
            #expect(answer.value("X-RateLimits") == "5" && answer.text == "ok")
            for other in [try legacy.ask("GET /api/other HTTP/1.1"), try plain.ask("GET /api/limited HTTP/1.1")] {
                #expect(other.values("X-RateLimit-Limit") == ["60"] && other.values("X-RateLimit-Remaining") == ["7"])
                #expect(other.value("X-RateLimit-Used") == "3")
                #expect(other.value("RateLimit-Remaining") == "8" && other.value("X-Rate-Limit-Limit") == "61")
            }
        }
    }

    @Test("of a backend's own limits a client is told behind the gateway's, where their names tell whose they are")
    func namedOfBackends() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                let isRefusal = exchange.request.target.hasSuffix("refused")
                try exchange.answer(
                    "ok", status: isRefusal ? "429 Too Many Requests" : "200 OK",
                    fields: "RateLimit-Policy: \"orders\";q=60;w=60\r\nratelimit: \"client\";r=7, \"orders\";r=9\r\n"
                        + "RateLimit: limit=8\r\nX-Kept: 1\r\nRateLimit-Policy: \"client\";q=8;w=9\r\nRetry-After: 17\r\n"
                )
                return .keep
            }
            let policies = "{name: client, limit: 5, window: 1h, paths: [/api/limited]}"
            func file(_ more: String = "", _ limit: String = "") -> File {
                var file = Self.file(backend, policies, nil)
                file.rateLimit += limit
                file.services[0].more += more
                return file
            }
            let node = try scene.node(file())
            for (path, status) in [("/api/limited", 200), ("/api/limited/refused", 429)] {
                let answer = try node.ask("GET \(path) HTTP/1.1")
                #expect(answer.status == status && answer.text == "ok" && answer.value("X-Kept") == "1")
                #expect(
                    answer.values("RateLimit-Policy") == ["\"client\";q=5;w=3600, \"orders\";q=60;w=60"])
                #expect(answer.values("RateLimit").count == 1)
                #expect(
                    answer.value("RateLimit") == "\"client\";r=\(status == 200 ? 4 : 3), \"orders\";r=9")
                // The gateway writes none with what it lets through.
                #expect(answer.values("Retry-After") == ["17"])
            }
            // Where the gateway says nothing, the backend's stand as they are.
            let silent = try scene.node(file("", ", headers: refused"))
            for answer in [try node.ask("GET /api/other HTTP/1.1"), try silent.ask("GET /api/limited HTTP/1.1")] {
                #expect(answer.values("RateLimit").count == 2 && answer.values("RateLimit-Policy").count == 2)
            }
            // A refusal of the gateway's own is told of by the gateway alone.
            for _ in 0..<4 { _ = try silent.ask("GET /api/limited HTTP/1.1") }
            let refused = try silent.ask("GET /api/limited HTTP/1.1")
            #expect(refused.status == 429 && refused.values("RateLimit-Policy") == ["\"client\";q=5;w=3600"])
            // What the service takes out or sets stands for the backend's.
            let edited = try scene.node(
                file(
                    "transforms: {response: {remove: [RateLimit-Policy], set: {RateLimit: \"\\\"mine\\\";r=1\"}}}"))
            let answer = try edited.ask("GET /api/limited HTTP/1.1")
            #expect(answer.values("RateLimit-Policy") == ["\"client\";q=5;w=3600"])
            #expect(answer.values("RateLimit") == ["\"client\";r=4, \"mine\";r=1"])
        }
    }

    @Test("the one policy of requestsPerSecond is told of too, where the file says so")
    func remainingOfDefault() throws {
        try Scene.play { scene in
            let (_, backend, node) = try LimitTests.node(scene, "requestsPerSecond: 1000, headers: all")
            // Of a transaction that came late nobody knows what remained.
            try eventually("an answer tells what remains") {
                try node.ask().value("RateLimit")?.hasPrefix("\"default\";r=99") == true
            }
            backend.stop()
            let failed = try node.ask()
            #expect(failed.status == 502)
            #expect(failed.value("RateLimit-Policy") == "\"default\";q=1000;w=1")
        }
    }

    @Test("a policy in shadow mode refuses nobody, and the access log says whom it would have refused")
    func shadow() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            let node = try scene.node(
                Self.file(backend, "{name: strict, limit: 2, window: 1h, mode: shadow}", redis),
                ["--set", "gateway.accessLog=true"])
            try LimitTests.reached([node])
            #expect(Self.admitted(try Self.burst(5, to: node, as: "192.0.2.1")) == 5)
            #expect(try redis.client()("ZCARD", "rate_limit:strict:2/1h:ip:192.0.2.1") == "2")
            #expect(
                try node.admin("/api/limits").text.contains(
                    "{\"admitted\":2,\"key\":\"ip\",\"limit\":2,\"mode\":\"shadow\",\"name\":\"strict\",\"refused\":3,\"window\":\"1h\"}"
                ))
            _ = try node.terminate()
            #expect(node.output.components(of: " shadow\n") == 3)
            #expect(node.output.components(of: " admitted\n") == 2)
        }
    }
}
