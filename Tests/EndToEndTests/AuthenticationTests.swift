import Glibc
import Primitives
import TestSupport
import Testing
import TokenSupport

@Suite("Who calls", .serialized)
struct AuthenticationTests {
    /// Seconds since 1970.
    private static var now: Int { time(nil) }

    private static func claims(_ user: String, _ more: String = "", lives: Int = 600) -> String {
        "{\"sub\":\"\(user)\",\"exp\":\(now + lives)\(more.isEmpty ? "" : ",\(more)")}"
    }

    private static let jwt = "jwt: [{algorithms: [HS256], leeway: 0s, secret: \"\(TokenSigner.secret)\"}]"
    private static let forward = "forward: {user: X-User, org: X-Org, tier: X-Tier, key: X-Key-ID}"
    private static let fileKey = "slc_0000"

    /// Services `/required`, `/optional`, `/none` and `/scoped`; tokens, and a key of the file for user 7 of acme.
    private static func file(_ backend: RecordingBackend, _ rateLimit: String = "", apiKeys: String = "") -> File {
        var file = File([
            File.Service(name: "required", path: "/required", urls: [backend.url], more: "auth: required"),
            File.Service(name: "optional", path: "/optional", urls: [backend.url], more: "auth: optional"),
            File.Service(name: "none", path: "/none", urls: [backend.url]),
            File.Service(
                name: "scoped", path: "/scoped", urls: [backend.url], more: "auth: required, scopes: [read, write]"),
        ])
        let hash = TokenSigner.hash(fileKey)
        let more = apiKeys.isEmpty ? "" : ", \(apiKeys)"
        file.auth = """
            \(jwt), \(forward), apiKeys: {header: X-API-Key, query: api_key, \
            keys: [{name: job, hash: "\(hash)", user: "7", org: acme, tier: gold, scopes: [read, write]}]\(more)}
            """
        file.rateLimit = rateLimit
        return file
    }

    /// A node, who signs its tokens, and who signs with another secret.
    private static func play(
        _ body: (RecordingBackend, SluiceNode, TokenSigner, _ stranger: TokenSigner) throws -> Void
    ) async throws {
        let signer = try await TokenSigner.make("HS256")
        let stranger = try await TokenSigner.make("HS256", secret: String(TokenSigner.secret.reversed()))
        try Scene.play { scene in
            let backend = try scene.backend()
            try body(backend, try scene.node(file(backend)), signer, stranger)
        }
    }

    private static func bearer(_ token: String) -> String { "Authorization: Bearer \(token)\r\n" }

    @Test("each service lets in whom it should, and tells others how to be let in")
    func modes() async throws {
        try await Self.play { backend, node, signer, stranger in
            let good = Self.bearer(try signer.sign(Self.claims("42")))
            let expired = Self.bearer(try signer.sign(Self.claims("42", lives: -1)))
            let forged = Self.bearer(try stranger.sign(Self.claims("42")))
            let key = "X-API-Key: \(Self.fileKey)\r\n"
            let rows: [(path: String, fields: String, status: Int, code: String?)] = [
                ("/required", "", 401, "credentials-missing"), ("/required", good, 200, nil),
                ("/required", expired, 401, "invalid-token"), ("/required", forged, 401, "invalid-token"),
                ("/required", Self.bearer("nonsense"), 401, "invalid-token"),
                ("/required", Self.bearer(String(repeating: "x", count: 9_000)), 401, "invalid-token"),
                ("/required", "Authorization: Basic YTpi\r\n", 401, "credentials-missing"),
                ("/required", "Authorization: Bearer\r\n", 401, "credentials-missing"),
                ("/required", good.replacing("Bearer", with: "bEaReR "), 200, nil),
                ("/required", good + good, 400, "credentials-ambiguous"),
                ("/required", good + key, 400, "credentials-ambiguous"),
                ("/required", key + key, 400, "credentials-ambiguous"),
                ("/required", key, 200, nil), ("/required", "X-API-Key: slc_0001\r\n", 401, "invalid-api-key"),
                ("/required?api_key=\(Self.fileKey)", "", 200, nil),
                ("/required?api%5Fkey=\(Self.fileKey.replacing("_", with: "%5F"))", "", 200, nil),
                ("/required?api_key=x", "", 401, "invalid-api-key"),
                ("/required?api_key=\(Self.fileKey)&api_key=x", "", 400, "credentials-ambiguous"),
                ("/required?api_keys=\(Self.fileKey)", "", 401, "credentials-missing"),
                ("/optional", "", 200, nil), ("/optional", good, 200, nil),
                ("/optional", expired, 401, "invalid-token"),
                ("/none?api_key=x&a=1&api_key=\(Self.fileKey)", "", 400, "credentials-ambiguous"),
                ("/none", "", 200, nil), ("/none", expired, 200, nil), ("/none", good + good, 200, nil),
                ("/scoped", good, 403, "insufficient-scope"), ("/scoped", key, 200, nil),
                (
                    "/scoped", Self.bearer(try signer.sign(Self.claims("42", "\"scope\":\"write read\""))), 200, nil
                ),
                (
                    "/scoped", Self.bearer(try signer.sign(Self.claims("42", "\"scope\":\"readwrite\""))), 403,
                    "insufficient-scope"
                ),
            ]
            var served = 0
            for row in rows {
                // The second time the answer is remembered.
                for _ in 0..<2 {
                    let answer = try node.ask("GET \(row.path) HTTP/1.1", fields: row.fields)
                    #expect(answer.status == row.status, "\(row.path) \(row.fields.prefix(60)): \(answer.text)")
                    if let code = row.code {
                        #expect(answer.value("Content-Type") == "application/problem+json")
                        #expect(answer.text.contains("\"code\":\"\(code)\""), "\(row.path): \(answer.text)")
                        #expect(answer.values("WWW-Authenticate").count == 2)
                    } else {
                        served += 1
                    }
                }
            }
            #expect(backend.requests.count == served)
            let missing = try node.ask("GET /required HTTP/1.1")
            #expect(missing.values("WWW-Authenticate") == ["Bearer realm=\"sluice\"", "ApiKey realm=\"sluice\""])
            let late = try node.ask("GET /required HTTP/1.1", fields: expired)
            #expect(
                late.values("WWW-Authenticate").first
                    == "Bearer realm=\"sluice\", error=\"invalid_token\", error_description=\"the token has expired\"")
            let scope = try node.ask("GET /scoped HTTP/1.1", fields: good)
            #expect(
                scope.values("WWW-Authenticate").first
                    == "Bearer realm=\"sluice\", error=\"insufficient_scope\", scope=\"read write\"")
            // HEAD and a body that nobody reads.
            #expect(try node.ask("HEAD /required HTTP/1.1").status == 401)
            let wire = try node.connect()
            try wire.send("POST /required HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello")
            #expect(try wire.readResponse().status == 401)
            try wire.send("GET /none HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try wire.readResponse().status == 200)
        }
    }

    @Test("backends learn who calls from the gateway alone")
    func forwarding() async throws {
        try await Self.play { backend, node, signer, _ in
            let token = try signer.sign(Self.claims("42", "\"org\":\"acme\",\"tier\":\"gold\""))
            let forged =
                "X-User: root\r\nx_user: root\r\nX.User: root\r\nX-ORG: root\r\nX-Tier: root\r\nX_Key_ID: root\r\nX-Users: kept\r\n"
            for (path, fields) in [
                ("/required", Self.bearer(token)), ("/optional", ""), ("/none", Self.bearer(token)),
                ("/optional", "Connection: X-User\r\n"), ("/required?a=1&api_key=\(Self.fileKey)&b=2", ""),
                ("/required/x?api_key=\(Self.fileKey)", ""), ("/required?api_key=\(Self.fileKey)&b=2", ""),
            ] {
                #expect(try node.ask("GET \(path) HTTP/1.1", fields: forged + fields).status == 200)
            }
            let requests = backend.requests
            func names(_ request: WireMessage) -> [[String]] {
                ["X-User", "x_user", "X.User", "X-Org", "X-Tier", "X-Key-ID", "X_Key_ID"].map { request.values($0) }
            }
            #expect(names(requests[0]) == [["42"], [], [], ["acme"], ["gold"], [], []])
            for index in 1...3 { #expect(names(requests[index]) == [[], [], [], [], [], [], []]) }
            let id = String(TokenSigner.hash(Self.fileKey).prefix(16))
            for index in 4...6 { #expect(names(requests[index]) == [["7"], [], [], ["acme"], ["gold"], [id], []]) }
            #expect(requests.allSatisfy { $0.value("X-Users") == "kept" })
            // Trailers, which some backends merge into the header.
            let wire = try node.connect()
            try wire.send(
                "POST /none HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
                    + "X-User: root\r\nx_org: root\r\nX-Note: kept\r\n\r\n")
            #expect(try wire.readResponse().status == 200)
            #expect(backend.requests.last?.trailers == "X-Note: kept\r\n")
            #expect(requests[0].value("Authorization") == "Bearer \(token)")
            #expect(
                requests[4...].map { $0.startLine.split(separator: " ")[1] } == ["/?a=1&b=2", "/x", "/?b=2"])
        }
    }

    @Test(
        "no backend gets a key, in whatever spelling, unless the file says so",
        arguments: [true, false], ["X-API-Key", "X-Job-Key"])
    func hiding(hides: Bool, name: String) throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = Self.file(backend)
            file.auth = file.auth.replacing(
                "header: X-API-Key", with: "header: \(name)" + (hides ? "" : ", hideCredentials: false"))
            let node = try scene.node(file)
            let other = name.replacing("-", with: "_")
            for (path, fields) in [
                ("/required", "\(name): \(Self.fileKey)\r\n"), ("/none", "\(name.lowercased()): \(Self.fileKey)\r\n"),
                ("/optional", "\(other): \(Self.fileKey)\r\n"), ("/required?api_key=\(Self.fileKey)&b=2", ""),
                ("/none?b=2&%61pi%5fkey=\(Self.fileKey)", ""),
            ] {
                #expect(try node.ask("GET \(path) HTTP/1.1", fields: fields + "X-Other: kept\r\n").status == 200)
            }
            let requests = backend.requests
            #expect(requests.count == 5)
            #expect(requests.allSatisfy { $0.value("X-Other") == "kept" })
            let key = Self.fileKey
            // Another spelling of a name that the gateway knows reaches no backend in any case.
            let misspelt = name == "X-API-Key" ? nil : key
            let seen: [String?] = hides ? [nil, nil, nil, nil, nil] : [key, key, misspelt, nil, nil]
            #expect(requests.map { $0.value(name) ?? $0.value(other) } == seen)
            #expect(
                requests[3...].map { $0.startLine.split(separator: " ")[1] }
                    == (hides ? ["/?b=2", "/?b=2"] : ["/?api_key=\(key)&b=2", "/?b=2&%61pi%5fkey=\(key)"]))
            // Whoever it is from is known all the same.
            #expect(requests[0].value("X-User") == "7" && requests[3].value("X-User") == "7")
        }
    }

    @Test("templates know the query without a key that nobody gets", arguments: [true, false])
    func templates(hides: Bool) throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = Self.file(backend)
            if !hides { file.auth.replace("query: api_key", with: "query: api_key, hideCredentials: false") }
            file.services[2].more = """
                transforms: {request: {set: {X-Original: "{path}{query}"}}, \
                redirects: [{prefix: /none/old, to: "https://other.example/{query}"}]}
                """
            let node = try scene.node(file)
            let key = "api_key=\(Self.fileKey)"
            for (query, hidden) in [
                ("?\(key)", ""), ("?a=1&\(key)&b=2", "?a=1&b=2"), ("?\(key)&b=2", "?b=2"), ("?b=2&\(key)", "?b=2"),
                ("?b=2", "?b=2"), ("", ""),
            ] {
                let expected = hides ? hidden : query
                #expect(try node.ask("GET /none\(query) HTTP/1.1").status == 200)
                #expect(backend.requests.last?.value("X-Original") == "/none\(expected)")
                #expect(backend.requests.last?.target == "/\(expected)")
            }
            let answer = try node.ask("GET /none/old?a=1&\(key) HTTP/1.1")
            #expect(answer.value("Location") == "https://other.example/?a=1\(hides ? "" : "&\(key)")")
        }
    }

    @Test("a key in the query reaches no log, and the log says who called")
    func log() async throws {
        let signer = try await TokenSigner.make("HS256")
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = Self.file(backend)
            file.gateway = "logFormat: text"
            let node = try scene.node(file, ["--set", "gateway.accessLog=true"])
            let token = try signer.sign(Self.claims("a user"))
            _ = try node.ask("GET /required?api_key=\(Self.fileKey)&b=2 HTTP/1.1")
            _ = try node.ask("GET /none?api_key=\(Self.fileKey)&api_key=\(Self.fileKey) HTTP/1.1")
            _ = try node.ask("GET /required HTTP/1.1", fields: Self.bearer(token))
            _ = try node.ask("GET /required HTTP/1.1")
            #expect(try node.terminate() == 0)
            let lines = node.output.split(separator: "\n")
            #expect(lines.count == 4)
            #expect(!node.output.contains(Self.fileKey) && !node.log.contains(Self.fileKey))
            #expect(lines[0].contains("/required?api_key=***&b=2\"") && lines[0].hasSuffix(" user:7"))
            #expect(lines[1].contains("/none?api_key=***\"") && lines[1].hasSuffix(" -"))
            #expect(lines[2].hasSuffix(" user:a%20user"))
            #expect(lines[3].hasSuffix(" -"))
        }
    }

    @Test("users, organisations and keys have windows of their own, by tier; others are counted by address")
    func policies() async throws {
        let signer = try await TokenSigner.make("HS256")
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            let file = Self.file(
                backend,
                """
                redisURL: "redis://127.0.0.1:\(redis.port)", timeout: 5s, policies: [\
                {name: user, limit: 2, window: 1h, key: user, tiers: {gold: 4}}, \
                {name: org, limit: 5, window: 1h, key: org, services: [required]}, \
                {name: key, limit: 3, window: 1h, key: apiKey, services: [optional]}]
                """)
            let nodes = [try scene.node(file, ["--node-id", "a"]), try scene.node(file, ["--node-id", "b"])]
            try LimitTests.reached(nodes)
            func admitted(_ count: Int, _ path: String, _ fields: String) throws -> Int {
                var admitted = 0
                for index in 0..<count {
                    let answer = try nodes[index % 2].ask("GET \(path) HTTP/1.1", fields: fields)
                    if answer.status == 200 { admitted += 1 } else { #expect(answer.status == 429, "\(answer.text)") }
                }
                return admitted
            }
            let plain = Self.bearer(try signer.sign(Self.claims("42", "\"org\":\"acme\"")))
            let gold = Self.bearer(try signer.sign(Self.claims("43", "\"org\":\"acme\",\"tier\":\"gold\"")))
            let other = Self.bearer(try signer.sign(Self.claims("someone@example.com", "\"tier\":\"silver\"")))
            #expect(try admitted(6, "/required", plain) == 2)
            // Three are left for acme, though the user's tier would allow four.
            #expect(try admitted(6, "/required", gold) == 3)
            #expect(try admitted(6, "/optional", other) == 2)
            #expect(try admitted(6, "/none", plain) == 2)
            let key = "X-API-Key: \(Self.fileKey)\r\n"
            #expect(try admitted(6, "/optional", key) == 3)
            let client = try redis.client()
            let id = TokenSigner.hash(Self.fileKey).prefix(16)
            for (name, count) in [
                ("user:2/1h:user:42", 2), ("user:4/1h:user:43", 3), ("org:5/1h:org:acme", 5),
                ("user:2/1h:ip:127.0.0.1", 2),
                ("key:3/1h:key:\(id)", 3), ("user:4/1h:user:7", 3),
            ] {
                try eventually("\(name) holds \(count)") { try client("ZCARD", "rate_limit:\(name)") == "\(count)" }
            }
            let refused = try nodes[0].ask("GET /required HTTP/1.1", fields: plain)
            #expect(refused.value("RateLimit-Policy")?.contains("\"user\";q=2;w=3600") == true)
            let limits = try nodes[0].admin("/api/limits").text
            #expect(limits.contains("\"tier\":\"gold\""))
        }
    }

    @Test("keys are made, found by all nodes, revoked for all, and outlive Redis")
    func keys() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            let url = "redis://127.0.0.1:\(redis.port)"
            let file = Self.file(backend, "redisURL: \"\(url)\"", apiKeys: "redis: true")
            let nodes = [try scene.node(file, ["--node-id", "a"]), try scene.node(file, ["--node-id", "b"])]
            try LimitTests.reached(nodes)
            func status(_ node: SluiceNode, _ key: String) throws -> Int {
                try node.ask("GET /scoped HTTP/1.1", fields: "X-API-Key: \(key)\r\n").status
            }
            func add(_ name: String) throws -> String {
                let made = try runSluice([
                    "keys", "add", "--redis", url, "--user", "9", "--org", "o", "--tier", "gold", "--scope", "read",
                    "--scope", "write", name,
                ])
                #expect(made.exit == 0, "\(made.errors)")
                return String(made.output.filter { $0 != "\n" })
            }
            let (first, second) = (try add("first"), try add("second"))
            #expect(first.hasPrefix("slc_") && first.utf8.count == 68 && first != second)
            for node in nodes {
                try eventually("the node knows the key") { try status(node, first) == 200 }
                #expect(try status(node, second) == 200)
                #expect(try status(node, "slc_made_up") == 401)
            }
            #expect(backend.requests.last?.value("X-User") == "9" && backend.requests.last?.value("X-Org") == "o")
            // Redis holds no key, only what it hashes to.
            let client = try redis.client()
            #expect(try client("HEXISTS", "sluice:keys", TokenSigner.hash(first)) == "1")
            #expect(try !client("HGETALL", "sluice:keys").contains(first))
            let list = try runSluice(["keys", "list", "--redis", url])
            #expect(list.exit == 0 && list.output.contains("first") && list.output.contains("gold"))
            #expect(!list.output.contains(first))

            let revoked = try runSluice(["keys", "revoke", "--redis", url, "first"])
            #expect(revoked.exit == 0, "\(revoked.errors)")
            for node in nodes { try eventually("the node refuses it") { try status(node, first) == 401 } }
            #expect(try runSluice(["keys", "revoke", "--redis", url, "first"]).exit == 1)
            #expect(try status(nodes[0], second) == 200)

            // Another program's.
            try client("RENAME", "sluice:keys", "kept")
            try client("SET", "sluice:keys", "not ours")
            #expect(try status(nodes[0], "slc_of_nobody") == 503)
            try eventually("the cause is counted") {
                try nodes[0].metrics().value("sluice_redis_errors_total", ["cause": "wrongType"]) ?? 0 > 0
            }
            #expect(nodes[0].log.contains("API keys cannot be read"))
            try client("RENAME", "kept", "sluice:keys")

            redis.kill()
            try eventually("the node has noticed") { nodes[0].log.contains("API keys: Redis is out of reach") }
            // The worker has forgotten it, and the node has not.
            try eventually("a known key goes on") { try status(nodes[0], second) == 200 }
            let unknown = try nodes[0].ask("GET /required HTTP/1.1", fields: "X-API-Key: slc_new\r\n")
            #expect(unknown.status == 503 && unknown.value("Retry-After") == "1")
            #expect(unknown.text.contains("\"code\":\"identity-unavailable\""))
            #expect(try nodes[0].ask("GET /scoped HTTP/1.1", fields: "X-API-Key: \(Self.fileKey)\r\n").status == 200)
        }
    }

    @Test("keys in a Redis Cluster are found, revoked, and go along when their slot moves")
    func keysOnCluster() throws {
        try Scene.play { scene in
            let cluster = try RedisCluster()
            defer { cluster.stop() }
            let file = Self.file(try scene.backend(), "redisURL: \"\(cluster.url)\"", apiKeys: "redis: true")
            let nodes = [try scene.node(file, ["--node-id", "a"]), try scene.node(file, ["--node-id", "b"])]
            try LimitTests.reached(nodes)
            func status(_ node: SluiceNode, _ key: String) throws -> Int {
                try node.ask("GET /scoped HTTP/1.1", fields: "X-API-Key: \(key)\r\n").status
            }
            func add(_ name: String) throws -> String {
                let made = try runSluice([
                    "keys", "add", "--redis", cluster.url, "--user", "9", "--scope", "read", "--scope", "write", name,
                ])
                #expect(made.exit == 0, "\(made.errors)")
                return String(made.output.filter { $0 != "\n" })
            }
            let first = try add("first")
            for node in nodes { try eventually("the node knows the key") { try status(node, first) == 200 } }
            let slot = try #require(Int(try cluster.servers[0].client()("CLUSTER", "KEYSLOT", "{sluice}:keys")))
            let source = slot <= 5_460 ? 0 : slot <= 10_922 ? 1 : 2
            try cluster.move(slot: slot, from: source, to: (source + 1) % 3)
            let holder = try cluster.servers[(source + 1) % 3].client()
            #expect(try holder("HEXISTS", "{sluice}:keys", TokenSigner.hash(first)) == "1")
            let second = try add("second")
            for node in nodes {
                try eventually("the node knows a key that was made after the move") { try status(node, second) == 200 }
                #expect(try status(node, first) == 200)
                #expect(try status(node, "slc_made_up") == 401)
            }
            let list = try runSluice(["keys", "list", "--redis", cluster.url])
            #expect(list.output.contains("first") && list.output.contains("second"))
            #expect(try runSluice(["keys", "revoke", "--redis", cluster.url, "first"]).exit == 0)
            for node in nodes { try eventually("the node refuses it") { try status(node, first) == 401 } }
            #expect(try status(nodes[0], second) == 200)
        }
    }

    @Test("a set of keys that changes counts anew, and a broken one changes nothing")
    func renewal() async throws {
        let secrets = ["a", "b"].map { String(repeating: $0, count: 32) }
        let signers = [
            try await TokenSigner.make("HS256", secret: secrets[0]),
            try await TokenSigner.make("HS256", secret: secrets[1]),
        ]
        try Scene.play { scene in
            let backend = try scene.backend()
            let directory = try TemporaryDirectory()
            func set(_ index: Int) -> String {
                "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"k\",\"k\":\"\(TokenSigner.encoded(Array(secrets[index].utf8)))\"}]}"
            }
            let path = try directory.write(set(0), to: "jwks.json")
            var file = File([backend], "auth: required")
            file.auth = "jwt: [{algorithms: [HS256], jwksFile: \"\(path)\"}]"
            let node = try scene.node(file)
            let fields = try signers.map { Self.bearer(try $0.sign(Self.claims("1"))) }
            func status(_ index: Int) throws -> Int { try node.ask(fields: fields[index]).status }
            #expect(try status(0) == 200)
            #expect(try status(1) == 401)
            _ = try directory.write("{\"keys\":[", to: "jwks.json")
            try eventually("it says that the file is broken") { node.log.contains("signing keys stay as they were") }
            #expect(try status(0) == 200)
            // The reason is told when it is another, and not each time.
            _ = unsafe unlink(path)
            try eventually("it says that the file is gone") { node.log.contains("jwks.json cannot be read") }
            #expect(node.log.split(separator: "\n").count { $0.contains("signing keys stay as they were") } == 2)
            #expect(try status(0) == 200)
            // A key that cannot be used takes nothing with it: the one that is gone does not count any more.
            let weak = "{\"kty\":\"oct\",\"kid\":\"weak\",\"k\":\"AAAA\"},{\"kty\":\"oct\""
            _ = try directory.write(set(1).replacing("{\"kty\":\"oct\"", with: weak), to: "jwks.json")
            try eventually("the new key counts") { try status(1) == 200 }
            // That is as it should be.
            try eventually("it is told") { node.log.contains(" info signing keys read anew") }
            try eventually("the old one does not") { try status(0) == 401 }
            try eventually("the weak one is named") {
                node.log.contains("jwks.json: the key weak: a secret of 3 bytes is too short for HS256")
            }
            let check = try runSluice(["check", "-c", node.file])
            #expect(check.exit == 0 && check.errors.contains("the key weak: a secret of 3 bytes"), "\(check.errors)")
            _ = try directory.write("{\"keys\":[]}", to: "jwks.json")
            try eventually("all keys are withdrawn") { try status(1) == 401 }
            try eventually("that is told") { node.log.contains("sets of signing keys are empty") }
        }
    }

    @Test("a remembered token is refused when its time is over")
    func expiry() async throws {
        try await Self.play { _, node, signer, _ in
            let fields = Self.bearer(try signer.sign(Self.claims("1", lives: 3)))
            #expect(try node.ask("GET /required HTTP/1.1", fields: fields).status == 200)
            try eventually("it has expired") { try node.ask("GET /required HTTP/1.1", fields: fields).status == 401 }
        }
    }

    @Test("requests that wait for a look keep their order, their bodies and their connection")
    func waiting() async throws {
        let signer = try await TokenSigner.make("HS256")
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.answer("\(exchange.request.value("X-User") ?? "-"):\(exchange.request.text)")
                return .keep
            }
            let node = try scene.node(Self.file(backend))
            // New tokens, pipelined, with bodies of both kinds; then in pieces.
            var requests = ""
            for user in 0..<20 {
                let token = try signer.sign(Self.claims("\(user)"))
                requests += "POST /required HTTP/1.1\r\nHost: test\r\n\(Self.bearer(token))"
                requests +=
                    user % 2 == 0
                    ? "Content-Length: 4\r\n\r\nbody" : "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
            }
            let wire = try node.connect()
            try wire.send(requests)
            for user in 0..<20 { #expect(try wire.readResponse().text == "\(user):body") }
            let token = try signer.sign(Self.claims("bytes"))
            for byte in "GET /required HTTP/1.1\r\nHost: test\r\n\(Self.bearer(token))\r\n".utf8 {
                try wire.send([byte])
            }
            #expect(try wire.readResponse().text == "bytes:")
            // Clients that leave while their token is looked at.
            for user in 100..<140 {
                let leaving = try node.connect()
                let token = try signer.sign(Self.claims("\(user)"))
                try leaving.send("GET /required HTTP/1.1\r\nHost: test\r\n\(Self.bearer(token))\r\n")
                if user % 2 == 0 { leaving.resetOnClose() }
                leaving.close()
            }
            // One that has only ended its sending gets its answer.
            let half = try node.connect()
            try half.send(
                "GET /required HTTP/1.1\r\nHost: test\r\n\(Self.bearer(try signer.sign(Self.claims("half"))))\r\n")
            half.endSending()
            #expect(try half.readResponse().text == "half:")
            #expect(try node.terminate() == 0)
        }
    }

    @Test("a flood of made-up tokens is answered, bounded, and leaves good ones alone")
    func flood() async throws {
        try await Self.play { _, node, signer, stranger in
            let good = Self.bearer(try signer.sign(Self.claims("42")))
            #expect(try node.ask("GET /required HTTP/1.1", fields: good).status == 200)
            let before = node.process.residentBytes
            let wires = try (0..<50).map { _ in try node.connect() }
            for round in 0..<40 {
                for (index, wire) in wires.enumerated() {
                    let token = try stranger.sign(Self.claims("\(round)-\(index)"))
                    try wire.send("GET /required HTTP/1.1\r\nHost: test\r\n\(Self.bearer(token))\r\n")
                }
                for wire in wires {
                    let status = try wire.readResponse().status
                    #expect(status == 401 || status == 503)
                }
                #expect(try node.ask("GET /required HTTP/1.1", fields: good).status == 200)
            }
            #expect(node.process.residentBytes - before < 32 << 20)
        }
    }

    @Test("consistent hashing by user keeps a user at one backend, wherever the user is")
    func hashing() async throws {
        let signer = try await TokenSigner.make("HS256")
        try Scene.play { scene in
            let backends = try (0..<3).map { try scene.backend(named: "\($0)") }
            var file = File(backends, "auth: optional, strategy: consistent_hash, hashOn: user")
            file.auth = Self.jwt
            file.gateway = "trustedProxies: [\"127.0.0.1/32\"]"
            let node = try scene.node(file)
            var places: Set<String> = []
            for user in 0..<24 {
                var own: Set<String> = []
                for address in 1...3 {
                    let fields =
                        Self.bearer(try signer.sign(Self.claims("user-\(user)")))
                        + "X-Forwarded-For: 192.0.2.\(address)\r\n"
                    own.insert(try node.ask(fields: fields).text)
                }
                #expect(own.count == 1)
                places.formUnion(own)
            }
            #expect(places.count == 3)
        }
    }
}
