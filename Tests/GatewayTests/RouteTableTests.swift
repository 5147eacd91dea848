import Gateway
import Primitives
import Testing

@Suite("Routes")
struct RouteTableTests {
    /// The definition, word by word: of all prefixes that the path equals or continues with a slash, the longest.
    private static func model(_ prefixes: [String], _ path: String) -> (service: Int, prefixLength: Int)? {
        var best: (service: Int, prefixLength: Int)?
        for (service, prefix) in prefixes.enumerated() {
            guard path == prefix || path.hasPrefix(prefix + "/") || prefix.isEmpty else { continue }
            if best == nil || prefix.utf8.count > best!.prefixLength { best = (service, prefix.utf8.count) }
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
        let segments = ["a", "b", "ab", "api", "", "%2F", "a.b"]
        func path(_ count: ClosedRange<Int>) -> String {
            (0..<Int.random(in: count, using: &generator)).map { _ in "/" + segments.randomElement(using: &generator)! }
                .joined()
        }
        var found = 0
        for _ in 0..<300 {
            var prefixes: Set<String> = []
            for _ in 0..<Int.random(in: 0...40, using: &generator) {
                var prefix = path(0...4)
                while prefix.hasSuffix("/") { prefix.removeLast() }
                prefixes.insert(prefix)
            }
            let list = prefixes.sorted().shuffled(using: &generator)
            let table = RouteTable(prefixes: list.map { Array($0.utf8) })
            for _ in 0..<100 {
                var asked = path(1...6)
                if Int.random(in: 0..<4, using: &generator) == 0 { asked += "x" }
                let expected = Self.model(list, asked)
                let answer = Self.find(table, asked)
                if expected != nil { found += 1 }
                #expect(answer?.service == expected?.service, "\(asked) in \(list), seed \(seed)")
                #expect(answer?.prefixLength == expected?.prefixLength, "\(asked) in \(list), seed \(seed)")
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
