import Gateway
import Primitives
import Testing

@Suite("Routes")
struct RouteTableTests {
    /// A path as it is compared, but for escapes: no parameters, no empty segments but the last.
    private static func normal(_ path: String) -> String {
        let segments = path.split(separator: "/", omittingEmptySubsequences: false).map { $0.prefix { $0 != ";" } }
        let inner = segments.dropFirst().dropLast().filter { !$0.isEmpty }
        return segments.count < 2 ? "" : "/" + (inner + [segments[segments.count - 1]]).joined(separator: "/")
    }

    /// The definition, word by word: of all prefixes that the path equals or continues with a slash, the longest, and
    /// what is left behind it.
    private static func model(_ prefixes: [String], _ path: String) -> (service: Int, rest: String)? {
        let path = normal(path)
        var best: (service: Int, rest: String)?
        for (service, prefix) in prefixes.enumerated() {
            guard path == prefix || path.hasPrefix(prefix + "/") || prefix.isEmpty else { continue }
            let rest = String(path.dropFirst(prefix.count))
            if best == nil || rest.count < best!.rest.count { best = (service, rest) }
        }
        return best
    }

    private static func find(_ table: RouteTable, _ path: String) -> (service: Int, prefixLength: Int)? {
        let bytes = Array(path.utf8)
        return table.service(of: bytes.span)
    }

    @Test("a table answers as the definition does, for random prefixes and paths")
    func randomTables() {
        let seed = UInt64.random(in: .min ... .max)
        print("seed \(seed)")
        var generator = SplitMix64(seed: seed)
        // Few segments, so that prefixes of prefixes are frequent.
        let plain = ["a", "b", "ab", "api", "%2F", "a.b"]
        let any = plain + ["", "", "a;x", ";", "api;y=%2F;z", "%3B"]
        func path(_ count: ClosedRange<Int>, of segments: [String]) -> String {
            (0..<Int.random(in: count, using: &generator)).map { _ in "/" + segments.randomElement(using: &generator)! }
                .joined()
        }
        var found = 0
        for _ in 0..<300 {
            var prefixes: Set<String> = []
            for _ in 0..<Int.random(in: 0...40, using: &generator) {
                prefixes.insert(path(0...4, of: plain))
            }
            let list = prefixes.sorted().shuffled(using: &generator)
            let table = RouteTable(prefixes: list.map { Array($0.utf8) })
            for _ in 0..<100 {
                var asked = path(1...6, of: any)
                if Int.random(in: 0..<4, using: &generator) == 0 { asked += "x" }
                let expected = Self.model(list, asked)
                let answer = Self.find(table, asked)
                if expected != nil { found += 1 }
                #expect(answer?.service == expected?.service, "\(asked) in \(list), seed \(seed)")
                guard let answer, let expected, !list[expected.service].isEmpty else { continue }
                let rest = String(asked.dropFirst(answer.prefixLength))
                #expect(Self.normal(rest) == expected.rest, "\(asked) in \(list), seed \(seed)")
                #expect(!rest.hasPrefix("//"), "\(asked) in \(list), seed \(seed)")
            }
        }
        // A model and a table that both find nothing would agree for ever.
        #expect(found > 1_000)
    }

    static let rows: [(String, Int?)] = [
        ("/api/users", 0), ("/api/users/", 0), ("/api/users/1", 0), ("/api/usersextra", nil), ("/api/user", nil),
        ("/api/orders//", 1), ("/api", nil), ("/", nil), ("", nil), ("/api/users/admin", 2), ("/api/users/adminx", 0),
    ]

    @Test("a prefix covers itself and what lies below it", arguments: rows)
    func borders(path: String, service: Int?) {
        let prefixes = ["/api/users", "/api/orders", "/api/users/admin"].map { Array($0.utf8) }
        #expect(Self.find(RouteTable(prefixes: prefixes), path)?.service == service)
    }

    /// Path, service, and how much of the path as written is its prefix.
    static let escaped: [(String, Int?, Int)] = [
        ("/%61pi/users", 0, 12), ("/%61%70i/%75sers/x%2fy", 0, 16), ("/api/users%2fadmin", nil, 0),
        ("/api/users/%61dmin", 2, 18), ("/api/users/%61dmin/", 2, 18), ("/api/users/%41dmin", 0, 10),
        ("/api%2Fusers", nil, 0), ("/a%2fb/c", 3, 6), ("/a%2Fb", 3, 6), ("/a%2f%62/", 3, 8), ("/a/b", nil, 0),
        ("/%2561pi/users", nil, 0), ("/api/users/%", 0, 10), ("/api/users%6", nil, 0), ("/api/users/%zz", 0, 10),
        ("/%7e", 4, 4), ("/~/%7E", 4, 2), ("/api/users%", nil, 0),
    ]

    @Test("escapes of unreserved characters are those characters, and the case of the others' digits is none")
    func escapes() {
        let prefixes = ["/api/users", "/api/orders", "/api/users/admin", "/a%2fb", "/%7E"].map { Array($0.utf8) }
        let table = RouteTable(prefixes: prefixes)
        for (path, service, length) in Self.escaped {
            let found = Self.find(table, path)
            #expect(found?.service == service, "\(path)")
            if service != nil { #expect(found?.prefixLength == length, "\(path)") }
        }
    }

    /// Path, service, and what is left of the path as written.
    static let spellings: [(String, Int?, String)] = [
        ("//api/users", 0, ""), ("/api//users", 0, ""), ("///api///users///x", 0, "/x"),
        ("/api/users//x//y", 0, "/x//y"),
        ("/api/users//", 0, "/"), ("/api/users;x", 0, ""), ("/api;a=b;c/users;d/x;e", 0, "/x;e"),
        ("/api/users;/admin", 1, ""), ("/api/users/;x/admin", 1, ""), ("/;x/api/users/;y", 0, "/;y"),
        ("/;/;//api/users", 0, ""), ("/api/users;%2Fadmin", 0, ""), ("/api;/", nil, ""), ("/api%3Bx/users", nil, ""),
        ("/api%2Fusers", nil, ""), ("/%2Fapi/users", nil, ""), ("/api/users%3Bx", nil, ""), ("//", nil, ""),
        (";api/users", nil, ""), ("/ap;x/i/users", nil, ""),
    ]

    @Test("slashes in a row are one, and parameters are no part of a segment")
    func spelledOtherwise() {
        let table = RouteTable(prefixes: ["/api/users", "/api/users/admin"].map { Array($0.utf8) })
        for (path, service, rest) in Self.spellings {
            let found = Self.find(table, path)
            #expect(found?.service == service, "\(path)")
            if let found { #expect(path.dropFirst(found.prefixLength) == rest, "\(path)") }
        }
    }

    @Test(
        "where encoded slashes count, no spelling leads past a prefix",
        arguments: [
            "/%2Fadmin", "/%2f%2f/admin", "/admin%2Fx", "/admin%3bx", "/admin%3bx%2fy", "/%3bx/admin", "/%61dmin%2f%2e",
            "//admin", "/admin;x", "/admin",
        ])
    func decoded(path: String) {
        let prefixes = [Array("/admin".utf8)]
        #expect(Self.find(RouteTable(prefixes: prefixes, reading: .decoded), path)?.service == 0)
        let isPlain = !path.lowercased().contains("%2f") && !path.lowercased().contains("%3b")
        #expect((Self.find(RouteTable(prefixes: prefixes), path) != nil) == isPlain)
    }

    @Test("the empty prefix takes what nothing else does")
    func root() {
        let table = RouteTable(prefixes: [[], Array("/a".utf8)])
        #expect(Self.find(table, "/a")?.service == 1)
        #expect(Self.find(table, "/b")?.service == 0)
        #expect(Self.find(table, "/")?.prefixLength == 0)
    }

    @Test("an empty table finds nothing")
    func empty() { #expect(Self.find(RouteTable(prefixes: []), "/a") == nil) }
}
