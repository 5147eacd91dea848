import LinuxIO
import Primitives
import TestSupport
import Testing
import Yams

@Suite("sluice limits", .serialized)
struct LimitsCommandTests {
    static let policies = """
        {name: login, limit: 5, window: 1m, tiers: {premium: 50}, paths: [/auth], cost: {default: 1, methods: {PUT: 2}}}, \
        {name: day, limit: 100, window: 1d, precision: buckets, localFirst: true}, \
        {name: total, limit: 50, window: 1h, key: global, mode: shadow}, \
        {name: user, limit: 9, window: 1h, key: user}, {name: files, concurrent: 2, lease: 20s, services: [files]}
        """

    static func file(_ backend: RecordingBackend, _ url: String) -> File {
        var file = File([
            File.Service(name: "main", urls: [backend.url]),
            File.Service(name: "files", path: "/files", urls: [backend.url]),
        ])
        file.rateLimit = "timeout: 5s, redisURL: \"\(url)\", policies: [\(policies)]"
        file.auth =
            "jwt: [{name: a, secret: \"0123456789abcdef0123456789abcdef\", algorithms: [HS256]}], default: optional"
        file.gateway = "trustedProxies: [\"127.0.0.1/32\"]"
        return file
    }

    static func url(_ redis: RedisServer) -> String { "redis://127.0.0.1:\(redis.port)" }

    @discardableResult
    static func burst(_ count: Int, _ path: String, to node: SluiceNode, as client: String) throws -> Int {
        let wire = try node.connect()
        try wire.send(
            String(repeating: "GET \(path) HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: \(client)\r\n\r\n", count: count))
        return try (0..<count).map { _ in try wire.readResponse() }.count { $0.status == 200 }
    }

    /// A node of these policies, and what begins a request of a client at `files` that runs until the end.
    static func play(
        _ body: (RedisServer, SluiceNode, _ begin: (_ client: String) throws -> Void) throws -> Void
    ) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let mayAnswer = Waiter()
            let backend = try scene.backend { exchange in
                if exchange.request.target == "/slow" { mayAnswer.wait() }
                try exchange.answer("done")
                return .keep
            }
            defer { mayAnswer.signal() }
            let node = try scene.node(file(backend, url(redis)))
            try LimitTests.reached([node])
            let slow = try node.connect()
            try body(redis, node) { client in
                try slow.send("GET /files/slow HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: \(client)\r\n\r\n")
                try eventually("it runs") { backend.requests.contains { $0.target == "/slow" } }
            }
            mayAnswer.signal()
            #expect(try slow.readResponse().status == 200)
        }
    }

    /// What it prints where all is well.
    static func output(_ arguments: [String]) throws -> String {
        let result = try runSluice(["limits"] + arguments)
        #expect(result.exit == 0, "\(arguments): \(result.errors)")
        return result.output
    }

    private static func json(_ arguments: [String]) throws -> [String: Any] {
        let text = try output(arguments + ["--json"])
        return try #require(try Yams.load(yaml: text) as? [String: Any], "\(text)")
    }

    private static func rows(_ arguments: [String], _ name: String = "policies") throws -> [[String: Any]] {
        try #require(try json(arguments)[name] as? [[String: Any]])
    }

    /// The cells of a table, by the first of each row.
    private static func cells(_ text: String) -> [String: [String]] {
        var found: [String: [String]] = [:]
        for line in text.split(separator: "\n").dropFirst() {
            let parts = line.split(separator: "  ", omittingEmptySubsequences: true).map { $0.trimmingSpaces() }
            if let first = parts.first { found[first] = parts }
        }
        return found
    }

    @Test("the policies are listed with everything that they say, with and without Redis")
    func list() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let node = try scene.node(Self.file(try scene.backend(), Self.url(redis)))
            try LimitTests.reached([node])
            try Self.burst(2, "/auth", to: node, as: "192.0.2.1")
            try Self.burst(1, "/files", to: node, as: "192.0.2.2")
            let table = Self.cells(try Self.output(["--config", node.file]))
            #expect(
                table["login"] == [
                    "login", "5", "1m", "ip", "enforce", "premium=50", "1 PUT=2", "exact", "paths /auth",
                ])
            #expect(
                table["day"] == ["day", "100", "1d", "ip", "enforce", "-", "1", "buckets, local first", "everything"])
            #expect(table["total"] == ["total", "50", "1h", "global", "shadow", "-", "1", "exact", "everything"])
            #expect(
                table["files"] == ["files", "2", "at once", "ip", "enforce", "-", "1", "lease 20s", "services files"])
            let rows = try Self.rows(["list", "--config", node.file, "--subjects"])
            #expect(rows.map { $0["name"] as? String } == ["login", "day", "total", "user", "files"])
            // Who shows no credential is counted by address.
            #expect(rows.map { $0["subjects"] as? Int }.prefix(4) == [1, 2, 1, 2])
            #expect(rows[0]["tiers"] as? [String: Int] == ["premium": 50])
            #expect(rows[4]["concurrent"] as? Bool == true)
            #expect(rows[4]["window"] == nil)
            let known = Self.cells(try Self.output(["--redis", Self.url(redis)]))
            #expect(known["day"] == ["day", "100", "1d", "buckets", "2"])
            #expect(known["login"] == ["login", "5", "1m", "exact", "1"])

            var plain = File([try scene.backend()])
            plain.rateLimit = "requestsPerSecond: 7"
            let directory = try TemporaryDirectory()
            let path = try directory.write(plain.yaml, to: "plain.yaml")
            let only = Self.cells(try Self.output(["list", "-c", path, "--set", "rateLimit.requestsPerSecond=8"]))
            #expect(only["default"]?.prefix(4) == ["default", "8", "1s", "ip"])
            plain.rateLimit = ""
            #expect(try Self.output(["-c", try directory.write(plain.yaml, to: "none.yaml")]).contains("no limits"))
        }
    }

    @Test("a subject is shown in each policy that counts it: exact, in buckets, and at once")
    func get() throws {
        try Self.play { redis, node, begin in
            #expect(try Self.burst(7, "/auth", to: node, as: "192.0.2.1") == 5)
            try begin("192.0.2.1")
            // What one policy took and another refused is given back soon.
            let key = "rate_limit:day:100/1d/buckets:ip:192.0.2.1"
            try eventually("the day has six") {
                let parts = try redis.client()("ZRANGE", key, "0", "-1", "WITHSCORES").filter { $0 != "'" && $0 != "]" }
                    .split(separator: " ").map(String.init)
                return stride(from: 1, to: parts.count, by: 2).reduce(0) { $0 + (Int(parts[$1]) ?? 0) } == 6
            }
            let rows = try Self.rows(["get", "192.0.2.1", "--config", node.file])
            func row(_ name: String) throws -> [String: Any] {
                try #require(rows.first { $0["policy"] as? String == name })
            }
            let login = try row("login")
            #expect(login["used"] as? Int == 5)
            #expect(login["remaining"] as? Int == 0)
            #expect(login["key"] as? String == "rate_limit:login:5/1m:ip:192.0.2.1")
            #expect(login["tier"] == nil)
            // The oldest entry and a window.
            let oldest = try redis.client()("ZRANGE", "rate_limit:login:5/1m:ip:192.0.2.1", "0", "0", "WITHSCORES")
            let score = try #require(
                oldest.split(separator: "'").last { $0.allSatisfy(\.isNumber) }.flatMap { Int64($0) })
            #expect(
                login["nextSlotFrees"] as? String == SystemClock.timestamp(microseconds: score + 60_000_000))
            #expect(try row("day")["used"] as? Int == 6)
            #expect(try row("day")["remaining"] as? Int == 94)
            #expect(try row("files")["used"] as? Int == 1)
            #expect(try row("files")["nextSlotFrees"] == nil)
            #expect(try row("user")["used"] as? Int == 6)
            // The premium tier has a window of its own, which nobody has used.
            #expect(rows.count == 4)
            let found = try Self.rows(["get", "ip:192.0.2.1", "--redis", Self.url(redis)])
            #expect(Set(found.compactMap { $0["key"] as? String }) == Set(rows.compactMap { $0["key"] as? String }))
            let table = Self.cells(try Self.output(["get", "192.0.2.1", "--config", node.file]))
            #expect(table["login"]?[2..<6] == ["5", "1m", "5", "0"])
            #expect(table["login"]?[6].hasPrefix("in ") == true)
            #expect(table["files"]?[6] == "when one ends")
            #expect(try Self.rows(["get", "192.0.2.1", "-c", node.file, "--policy", "day"]).count == 1)
            // Nobody has asked for it, and still it is known what there would be.
            let other = try Self.rows(["get", "user:42", "-c", node.file])
            #expect(other.map { $0["remaining"] as? Int } == [9])
            #expect(
                try Self.output(["get", "user:42", "--redis", Self.url(redis)]).contains(
                    "no policy has counted user:42"))
        }
    }

    @Test("top tells who uses most, who is refused, and how often by the nodes that are asked")
    func top() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let node = try scene.node(Self.file(try scene.backend(), Self.url(redis)))
            try LimitTests.reached([node])
            for (client, count) in [(1, 2), (2, 5), (3, 4), (4, 9)] {
                try Self.burst(count, "/auth", to: node, as: "192.0.2.\(client)")
            }
            let login = ["top", "-c", node.file, "--policy", "login"]
            let rows = try Self.rows(login, "subjects")
            #expect(rows.map { $0["subject"] as? String } == [2, 4, 3, 1].map { "ip:192.0.2.\($0)" })
            #expect(rows.map { $0["used"] as? Int } == [5, 5, 4, 2])
            #expect(rows.map { $0["isFull"] as? Bool } == [true, true, false, false])
            #expect(rows.allSatisfy { $0["policy"] as? String == "login" })
            #expect(try Self.rows(login + ["--limit", "1"], "subjects").count == 1)
            #expect(try Self.json(login)["refused"] == nil)
            let all = try Self.rows(["top", "--redis", Self.url(redis), "--limit", "100"], "subjects")
            #expect(Set(all.compactMap { $0["policy"] as? String }) == ["login", "day", "total", "user"])
            let admin = try #require(node.admin)
            let text = try Self.output(login + ["--admin", "\(admin)"])
            let table = Self.cells(text)
            #expect(table["ip:192.0.2.4"] == ["ip:192.0.2.4", "login", "4"])
            #expect(text.contains("refused, next slot in "))
            // A shadow refuses nobody, however full it is.
            let shadow = ["top", "-c", node.file, "--policy", "total"]
            for client in 5...8 { #expect(try Self.burst(9, "/", to: node, as: "192.0.2.\(client)") == 9) }
            let full = try Self.output(shadow)
            #expect(full.contains("full (shadow), next slot in "), "\(full)")
            #expect(try Self.rows(shadow, "subjects").map { $0["mode"] as? String } == ["shadow"])
            let refused = try Self.rows(["top", "-c", node.file, "--admin", "\(admin)"], "refused")
            #expect(refused.first?["count"] as? Int == 4)
        }
    }

    @Test("reset deletes what a subject has, says so, and nodes honour it")
    func reset() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let node = try scene.node(Self.file(try scene.backend(), Self.url(redis)))
            try LimitTests.reached([node])
            #expect(try Self.burst(7, "/auth", to: node, as: "192.0.2.1") == 5)
            #expect(try Self.burst(7, "/auth", to: node, as: "192.0.2.2") == 5)
            let said = try Self.output(["reset", "192.0.2.1", "-c", node.file, "--policy", "login"])
            #expect(said == "deleted rate_limit:login:5/1m:ip:192.0.2.1 (5 of 5 used)\n")
            try eventually("it passes again") { try Self.burst(1, "/auth", to: node, as: "192.0.2.1") == 1 }
            #expect(try Self.burst(1, "/auth", to: node, as: "192.0.2.2") == 0)
            // What a policy counted under another limit goes too, and nothing of others.
            let client = try redis.client()
            for key in ["login:9/1m", "login:9/1m/buckets", "logins:9/1m"] {
                _ = try client("ZADD", "rate_limit:\(key):ip:192.0.2.1", "9000000000000000", "a")
            }
            let former = try Self.output(["reset", "192.0.2.1", "-c", node.file, "--policy", "login"])
            for key in ["login:9/1m", "login:9/1m/buckets", "login:5/1m"] {
                #expect(former.contains("deleted rate_limit:\(key):ip:192.0.2.1 ("), "\(former)")
            }
            #expect(try client("KEYS", "rate_limit:log*192.0.2.1") == "['rate_limit:logins:9/1m:ip:192.0.2.1']")
            let deleted = try Self.rows(["reset", "192.0.2.2", "--redis", Self.url(redis)], "deleted")
            #expect(Set(deleted.compactMap { $0["policy"] as? String }) == ["login", "day", "user"])
            #expect(try redis.client()("KEYS", "*192.0.2.2") == "[]")
            #expect(try Self.output(["reset", "192.0.2.2", "-c", node.file]).contains("nothing to reset"))
            #expect(try Self.burst(1, "/auth", to: node, as: "192.0.2.1") == 1)
        }
    }

    @Test("whom top names, get and reset take by the same words, whatever the name is made of")
    func names() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            var file = Self.file(try scene.backend(), Self.url(redis))
            file.rateLimit =
                "timeout: 5s, redisURL: \"\(Self.url(redis))\", "
                + "policies: [{name: tenant, limit: 3, window: 1h, key: \"header:X|Tenant\"}]"
            let node = try scene.node(file)
            try LimitTests.reached([node])
            let tenants = [
                "acme co", "{acme}", "a:b:c", "key|1", "j\u{f6}rg", "a%20b", "50%", "'; rm *", "~x", "a\\b\"c",
                "a tenant of a long name: \u{1f600}",
            ]
            for tenant in tenants { #expect(try node.ask(fields: "X|Tenant: \(tenant)\r\n").status == 200) }
            let top = try Self.rows(["top", "-c", node.file], "subjects").compactMap { $0["subject"] as? String }
            #expect(Set(top).count == tenants.count && top.allSatisfy { $0.hasPrefix("header:x|tenant:") }, "\(top)")
            for subject in top {
                #expect(try Self.rows(["get", subject, "-c", node.file]).map { $0["used"] as? Int } == [1])
            }
            for tenant in tenants where !tenant.contains("%20") {
                let rows = try Self.rows(["get", "header:X|Tenant:\(tenant)", "--redis", Self.url(redis)])
                #expect(rows.map { $0["used"] as? Int } == [1], "\(tenant)")
            }
            for subject in top {
                #expect(try Self.rows(["reset", subject, "-c", node.file], "deleted").count == 1, "\(subject)")
            }
            #expect(try redis.client()("KEYS", "rate_limit:tenant:*header*") == "[]")
        }
    }

    @Test("a key that holds something else is named and takes no answer about others with it; reset deletes it")
    func strangeKeys() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let node = try scene.node(Self.file(try scene.backend(), Self.url(redis)))
            try LimitTests.reached([node])
            try Self.burst(2, "/auth", to: node, as: "192.0.2.1")
            let client = try redis.client()
            let strange = ["login:5/1m", "day:100/1d/buckets"].map { "rate_limit:\($0):ip:192.0.2.9" }
            for key in strange { _ = try client("SET", key, "x") }
            for place in [["-c", node.file], ["--redis", Self.url(redis)]] {
                let top = try runSluice(["limits", "top", "--json"] + place)
                #expect(top.exit == 0 && top.output.contains("ip:192.0.2.1") && !top.output.contains("192.0.2.9"))
                let get = try runSluice(["limits", "get", "192.0.2.9"] + place)
                #expect(get.exit == 0, "\(get.errors)")
                for key in strange {
                    for result in [top, get] {
                        #expect(
                            result.errors.contains(
                                "\(key) is left out: it holds something that is no window; "
                                    + "`sluice limits reset ip:192.0.2.9` deletes it"), "\(result.errors)")
                    }
                }
            }
            let said = try Self.output(["reset", "192.0.2.9", "-c", node.file])
            for key in strange { #expect(said.contains("deleted \(key) (it held something that is no window)\n")) }
            #expect(try client("KEYS", "*192.0.2.9") == "[]")
            #expect(try runSluice(["limits", "top", "-c", node.file]).errors == "")
        }
    }

    @Test("tiers with the same limit share their windows: no subject counts twice")
    func sharedWindows() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            var file = Self.file(try scene.backend(), Self.url(redis))
            file.rateLimit =
                "redisURL: \"\(Self.url(redis))\", policies: "
                + "[{name: g, limit: 20, window: 1m, key: user, tiers: {gold: 40, silver: 20, bronze: 20}}]"
            let directory = try TemporaryDirectory()
            let path = try directory.write(file.yaml, to: "gateway.yaml")
            let client = try redis.client()
            for key in ["40/1m:user:a", "40/1m:user:b", "40/1m:user:c", "20/1m:user:d"] {
                _ = try client("ZADD", "rate_limit:g:\(key)", "9000000000000000", "a")
            }
            #expect(try Self.rows(["list", "-c", path, "--subjects"]).map { $0["subjects"] as? Int } == [4])
            let own = try Self.rows(["get", "user:d", "-c", path])
            #expect(own.map { $0["used"] as? Int } == [1] && own.allSatisfy { $0["tier"] == nil })
            let tier = try Self.rows(["get", "user:a", "-c", path]).filter { $0["used"] as? Int == 1 }
            #expect(tier.map { $0["tier"] as? String } == ["gold"])
        }
    }

    @Test("on a Redis Cluster, windows on all servers are found, told and deleted, also while a slot moves")
    func cluster() throws {
        try Scene.play { scene in
            let cluster = try RedisCluster()
            defer { cluster.stop() }
            let node = try scene.node(Self.file(try scene.backend(), cluster.url))
            try LimitTests.reached([node])
            let clients = (1...24).map { "192.0.2.\($0)" }
            for client in clients { #expect(try Self.burst(2, "/auth", to: node, as: client) == 2) }
            let rows = try Self.rows(["-c", node.file, "--subjects"])
            #expect(rows.map { $0["subjects"] as? Int }.prefix(4) == [24, 24, 1, 24])
            let top = try Self.rows(["top", "--redis", cluster.url, "--policy", "login", "--limit", "50"], "subjects")
            #expect(Set(top.compactMap { $0["subject"] as? String }) == Set(clients.map { "ip:\($0)" }))
            #expect(top.first?["key"] as? String == "rate_limit:{login:5/1m:ip:192.0.2.1}")
            let key = "rate_limit:{login:5/1m:ip:192.0.2.7}"
            let slot = try #require(Int(try cluster.servers[0].client()("CLUSTER", "KEYSLOT", key)))
            let source = slot <= 5_460 ? 0 : slot <= 10_922 ? 1 : 2
            try cluster.move(slot: slot, from: source, to: (source + 1) % 3) { _ in
                let login = try Self.rows(["get", "192.0.2.7", "-c", node.file, "--policy", "login"])
                #expect(login.map { $0["used"] as? Int } == [2])
            }
            let found = try Self.rows(["get", "192.0.2.7", "--redis", cluster.url])
            #expect(found.count == 3)
            let deleted = try Self.rows(["reset", "192.0.2.7", "-c", node.file], "deleted")
            #expect(Set(deleted.compactMap { $0["key"] as? String }) == Set(found.compactMap { $0["key"] as? String }))
            #expect(try Self.output(["get", "192.0.2.7", "--redis", cluster.url]).contains("no policy has counted"))
        }
    }

    @Test("where nodes follow the cluster's configuration, the policies in force there count")
    func following() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            let yaml = Self.file(backend, Self.url(redis)).yaml
            let directory = try TemporaryDirectory()
            let path = try directory.write(yaml + "config: {from: redis}\n", to: "gateway.yaml")
            #expect(Self.cells(try Self.output(["-c", path]))["login"]?[1] == "5")
            func services() throws -> String {
                let result = try runSluice(["backends", "--redis", Self.url(redis), "-c", path])
                #expect(result.exit == 0, "\(result.errors)")
                return result.output
            }
            #expect(try services().contains("main "))
            let pushed = yaml.replacing("limit: 5,", with: "limit: 7,").replacing("name: main", with: "name: shop")
                .replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
            let client = try redis.client()
            _ = try client("SET", "sluice:config:current", "3")
            let missing = try runSluice(["limits", "-c", path])
            #expect(missing.exit == 1)
            #expect(missing.errors.contains("version 3, which is in force, is not in Redis"))
            _ = try client(
                "HSET", "sluice:config:versions", "3",
                "{\"version\":3,\"at\":1,\"by\":\"me\",\"note\":\"\",\"hash\":\"a\",\"text\":\"\(pushed)\"}")
            #expect(Self.cells(try Self.output(["-c", path]))["login"]?[1] == "7")
            let login = try Self.rows(["get", "192.0.2.1", "-c", path, "--policy", "login"])
            #expect(login.first?["key"] as? String == "rate_limit:login:7/1m:ip:192.0.2.1")
            let now = try services()
            #expect(now.contains("shop ") && !now.contains("main "))
        }
    }

    @Test("whatever is wrong is told with what would be right")
    func errors() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let directory = try TemporaryDirectory()
            let good = try directory.write(Self.file(try scene.backend(), Self.url(redis)).yaml, to: "good.yaml")
            var memory = File([try scene.backend()])
            memory.rateLimit = "requestsPerSecond: 7"
            let plain = try directory.write(memory.yaml, to: "plain.yaml")
            for (arguments, part) in [
                (["get", "192.0.2.1"], "--config FILE or --redis URL"),
                (["top", "-c", plain], "no rateLimit.redisURL"),
                (["get", "usr:42", "-c", good], "(did you mean user:…?)"),
                (["get", "42", "-c", good], "subjects are ip:ADDRESS"),
                (["get", "org:acme", "-c", good], "no policy counts org:acme: login by ip"),
                (["get", "global", "-c", good, "--policy", "totl"], "no policy totl (did you mean total?)"),
                (["reset", "service:fles", "-c", good], "no service fles (did you mean files?)"),
                (["top", "-c", good, "--limit", "0"], "1...10000"),
                (["top", "--redis", "http://a"], "--redis"),
                (["top", "--redis", "redis://127.0.0.1:1"], "Connection refused"),
                (["list", "-c", "\(directory.path)/none.yaml"], "no such file"),
                (["top", "-c", good, "--admin", "nowhere"], "HOST:PORT"),
                (["simulate", "--log", good], "--limit COUNT"),
                (["simulate", "--log", "\(directory.path)/none.log", "--limit", "1"], "No such file"),
                (["simulate", "--log", good, "--limit", "1", "--window", "1"], "no unit"),
                (["simulate", "--log", good, "--limit", "1", "--key", "org"], "does not name organisations"),
                (["simulate", "--log", good, "--limit", "1", "--key", "upi"], "--key"),
                (["simulate", "--log", good, "-c", good, "--policy", "files"], "does not tell what runs at once"),
                (["simulate", "--log", good, "-c", good, "--policy", "logn"], "did you mean login?"),
            ] {
                let result = try runSluice(["limits"] + arguments)
                #expect(result.exit != 0, "\(arguments)")
                #expect(result.errors.contains(part), "\(arguments): \(result.errors)")
            }
            for command in ["list", "get", "top", "reset", "simulate"] {
                let help = try runSluice(["limits", command, "--help"])
                #expect(help.exit == 0)
                #expect(help.output.contains("--json"))
            }
        }
    }
}
