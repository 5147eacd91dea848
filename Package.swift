// swift-tools-version: 6.2
import PackageDescription

/// Every target is held to the same rules: Swift 6, no unmarked unsafe code, no warnings.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableExperimentalFeature("Lifetimes"),
]

/// Release builds hold the Swift libraries: calls into the runtime, of which a request makes some hundred, then take no
/// detour through a table of addresses (4 % of a request's time), and the binary runs where no Swift is installed.
let staticRuntime = [
    "-static-stdlib", "-lFoundationInternationalization", "-lCoreFoundation", "-l_FoundationCollections",
    "-l_FoundationCShims", "-l_FoundationICU", "-lstdc++",
]

func module(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

func tests(of name: String, _ dependencies: [Target.Dependency] = [], exclude: [String] = []) -> Target {
    .testTarget(
        name: "\(name)Tests",
        dependencies: [.target(name: name)] + dependencies,
        exclude: exclude,
        swiftSettings: strict)
}

/// What is fuzzed: as tests that replay the corpus, or, for scripts/fuzz, as a program that libFuzzer drives. One set of
/// sources, which sees the insides of modules as tests do.
let fuzzed: [Target.Dependency] = [
    "Primitives", "LinuxIO", "HTTP1", "Hiredis", "EventLoop", "Identity", "ProxyProtocol", "Tracing", "Configuration",
    "Gateway",
]
let fuzzing: [Target] =
    Context.environment["SLUICE_FUZZ"] == nil
    ? [
        .testTarget(
            name: "FuzzingTests", dependencies: fuzzed, path: "Tests/Fuzzing",
            exclude: ["CFuzzer", "Corpus", "Driver", "Words"], swiftSettings: strict)
    ]
    : [
        .systemLibrary(name: "CFuzzer", path: "Tests/Fuzzing/CFuzzer"),
        .executableTarget(
            name: "fuzz", dependencies: fuzzed + ["CFuzzer"], path: "Tests/Fuzzing",
            exclude: ["CFuzzer", "Corpus", "Replay", "Words"], swiftSettings: strict),
    ]

// Listed from the bottom layer up: a module may import only what stands above it in this list.
let package = Package(
    name: "sluice",
    products: [.executable(name: "sluice", targets: ["sluice"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/vapor/jwt-kit", from: "5.7.1"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    ],
    targets: [
        .systemLibrary(name: "CLinux"),
        .systemLibrary(name: "CHiredis"),
        .systemLibrary(name: "COpenSSL"),
        .systemLibrary(name: "CZlib"),
        module("Primitives", []),
        module("LinuxIO", ["CLinux", "Primitives"]),
        module("HTTP1", ["Primitives", "LinuxIO"]),
        module("Hiredis", ["CHiredis", "Primitives", "LinuxIO"]),
        module("TLS", ["COpenSSL", "Primitives", "LinuxIO"]),
        module("Compression", ["CZlib", "Primitives", "LinuxIO"]),
        module("ProxyProtocol", ["Primitives"]),
        module("Transforms", ["Primitives", "LinuxIO"]),
        module("Tracing", ["Primitives", "LinuxIO"]),
        module("EventLoop", ["Primitives", "LinuxIO"]),
        module("Supervision", ["Primitives", "LinuxIO"]),
        module("RedisClient", ["Primitives", "LinuxIO", "EventLoop", "Hiredis", "TLS"]),
        module("Balancing", ["Primitives"]),
        module("Identity", ["Primitives", "LinuxIO"]),
        module(
            "Configuration", ["Primitives", "LinuxIO", "HTTP1", "Transforms", .product(name: "Yams", package: "Yams")]),
        module("RateLimiting", ["Primitives", "LinuxIO", "EventLoop", "Hiredis", "RedisClient", "Identity"]),
        module("Membership", ["Primitives", "EventLoop", "RedisClient"]),
        module("Health", ["Primitives", "EventLoop", "RedisClient", "Membership"]),
        module(
            "Credentials",
            [
                "Primitives", "LinuxIO", "EventLoop", "Hiredis", "RedisClient", "Identity", "Configuration",
                .product(name: "JWTKit", package: "jwt-kit"), .product(name: "Crypto", package: "swift-crypto"),
            ]),
        module(
            "Gateway",
            [
                "Primitives", "LinuxIO", "HTTP1", "Hiredis", "TLS", "Compression", "ProxyProtocol", "Transforms",
                "Tracing", "EventLoop", "RedisClient", "Balancing", "Identity", "Configuration", "RateLimiting",
                "Health", "Membership", "Supervision", "Credentials",
                .product(name: "Logging", package: "swift-log"),
            ]),
        module(
            "Admin",
            [
                "Primitives", "LinuxIO", "HTTP1", "EventLoop", "RedisClient", "Configuration", "RateLimiting", "Health",
                "Membership", "Supervision", "Gateway",
            ]),
        .executableTarget(
            name: "sluice",
            dependencies: [
                "Primitives", "LinuxIO", "EventLoop", "HTTP1", "Hiredis", "RedisClient", "Configuration",
                "RateLimiting",
                "Membership", "Health", "Credentials", "Supervision", "Gateway", "Admin",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict,
            linkerSettings: [.unsafeFlags(staticRuntime, .when(configuration: .release))]),

        // Real processes, raw sockets and a seeded clock for the tests.
        .target(
            name: "TestSupport", dependencies: ["Primitives", "LinuxIO", "Hiredis", "CZlib"], path: "Tests/TestSupport",
            swiftSettings: strict),
        // Tokens, signed with keys of the tests' own.
        .target(
            name: "TokenSupport",
            dependencies: [
                "LinuxIO", "TestSupport", .product(name: "JWTKit", package: "jwt-kit"),
                .product(name: "Crypto", package: "swift-crypto"),
            ], path: "Tests/TokenSupport", swiftSettings: strict),
        tests(of: "Primitives"),
        tests(of: "LinuxIO", ["Primitives"]),
        tests(of: "HTTP1", ["Primitives", "LinuxIO", "TestSupport"]),
        tests(of: "Hiredis", ["Primitives", "LinuxIO"]),
        tests(of: "Compression", ["LinuxIO", "TestSupport"]),
        tests(of: "ProxyProtocol", ["Primitives"]),
        tests(of: "Transforms", ["Primitives", "LinuxIO"]),
        tests(of: "Tracing", ["Primitives", "LinuxIO"]),
        tests(of: "EventLoop", ["Primitives", "LinuxIO", "TestSupport"]),
        tests(of: "Supervision", ["Primitives", "LinuxIO"]),
        tests(of: "RedisClient", ["Primitives", "LinuxIO", "EventLoop", "Hiredis", "TLS", "TestSupport"]),
        tests(of: "Balancing", ["Primitives"]),
        tests(of: "Identity", ["Primitives", "LinuxIO"]),
        tests(of: "Configuration", ["Primitives"]),
        tests(
            of: "RateLimiting",
            ["Primitives", "LinuxIO", "EventLoop", "RedisClient", "Hiredis", "Identity", "TestSupport"]),
        tests(of: "Membership", ["Primitives", "LinuxIO", "RedisClient", "EventLoop", "Hiredis", "TestSupport"]),
        tests(
            of: "Health", ["Primitives", "LinuxIO", "RedisClient", "EventLoop", "Hiredis", "Membership", "TestSupport"]),
        tests(of: "Credentials", ["Primitives", "Identity", "Configuration", "TestSupport", "TokenSupport"]),
        tests(
            of: "Gateway",
            ["Primitives", "LinuxIO", "HTTP1", "Identity", "Configuration", "RateLimiting", "TestSupport"]),
        tests(of: "Admin", ["Primitives", "LinuxIO", "EventLoop"]),
        .testTarget(
            name: "EndToEndTests",
            dependencies: [
                "sluice", "Primitives", "LinuxIO", "TestSupport", "TokenSupport",
                .product(name: "Yams", package: "Yams"),
            ],
            swiftSettings: strict),
        .testTarget(name: "HouseRulesTests", swiftSettings: strict),
    ] + fuzzing
)
