import HTTP1
import Testing

@Suite("A path")
struct PathHazardTests {
    @Test(
        "is hazardous where a backend may see another path in it",
        arguments: [
            ("/", .none), ("/a/b", .none), ("/a.b/c..d/..e/f../...", .none), ("/a//b", .none), ("", .none),
            ("/%41%20%c3%a9%25", .none), ("/a;x=1/b", .none), ("/;", .none), ("/%2e%2e%2e", .none), ("/%3b..", .none),
            ("/.", .dotSegment), ("/..", .dotSegment), ("/./a", .dotSegment), ("/a/../b", .dotSegment),
            ("..", .dotSegment), ("/%2e", .dotSegment), ("/%2E%2e/", .dotSegment), ("/.%2e/a", .dotSegment),
            ("/a/%2e./b", .dotSegment), ("/..;/a", .dotSegment), ("/.;x=y/a", .dotSegment), ("/%2e%2e;", .dotSegment),
            ("/..%3b/a", .dotSegment), ("/.%3B", .dotSegment), ("/%2e%2e%3bx/", .dotSegment), ("/a%3b../b", .none),
            ("/a%2fb", .encodedSlash), ("/%2f", .encodedSlash), ("/a%2F...%2fb", .encodedSlash),
            ("/..%2F", .dotSegment), ("/a%2f..", .dotSegment), ("/a%2fb/../../c", .dotSegment),
            ("/a%2F%2e%2E%2fb", .dotSegment), ("/a%2f./b", .dotSegment), ("/a%2fb%5c..", .backslash),
            ("/a%2fb%00", .encodedNUL), ("/a%2fb%", .malformedEscape), ("/a\\b", .backslash), ("/..\\", .backslash),
            ("/a%5cb", .backslash), ("/%5C..", .backslash), ("/a%00", .encodedNUL),
            ("/%", .malformedEscape), ("/%2", .malformedEscape), ("/%2g", .malformedEscape), ("/%g2", .malformedEscape),
            ("/%%32e", .malformedEscape), ("/%u002e", .malformedEscape),
            ("/%252e%252e/", .none), ("/a;../b", .none), ("/;.", .none),
        ] as [(String, PathHazard)])
    func hazards(_ path: String, _ hazard: PathHazard) {
        let input = bytes(path)
        #expect(PathHazard(path: input.span) == hazard)
    }
}
