package import Primitives
package import Transforms

extension Configuration {
    /// What a service changes of requests and answers, and which requests it answers by itself.
    package struct Transforms: Hashable, Sendable {
        package let request: HeaderEdits
        package let response: HeaderEdits
        /// The first that fits counts.
        package let rewrites: [PathRule]
        package let redirects: [Redirect]
        package let cors: CORS?
        package let compression: Compression?
        package let maintenance: Maintenance?
    }

    package struct HeaderEdits: Hashable, Sendable {
        package struct Field: Hashable, Sendable {
            package let name: String
            package let value: Template
        }
        /// In place of those of the same name.
        package let set: [Field]
        /// Beside those of the same name.
        package let add: [Field]
        package let remove: [String]

        package var isEmpty: Bool { self.set.isEmpty && add.isEmpty && remove.isEmpty }
    }

    package enum PathMatch: Hashable, Sendable {
        /// Itself and what lies below it, as written; without a trailing slash.
        case prefix(String)
        case pattern(PathPattern)
    }

    package struct PathRule: Hashable, Sendable {
        package let match: PathMatch
        package let to: Template
    }

    package struct Redirect: Hashable, Sendable {
        package let rule: PathRule
        package let status: Int
    }

    package struct CORS: Hashable, Sendable {
        package let origins: [OriginPattern]
        package let methods: [String]
        /// `*` alone, or names.
        package let headers: [String]
        package let expose: [String]
        package let credentials: Bool
        /// How long a browser may remember the answer to a preflight.
        package let maxAge: TimeSpan
    }

    package struct Compression: Hashable, Sendable {
        package let types: MediaTypes
        /// Shorter answers stay as they are.
        package let minBytes: Int
        package let level: Int
    }

    package struct Maintenance: Hashable, Sendable {
        package let status: Int
        package let retryAfter: TimeSpan?
        /// With its Content-Type; `nil`: a problem document.
        package let body: Body?
        /// Clients that are served all the same.
        package let allow: [CIDR]

        package struct Body: Hashable, Sendable {
            package let bytes: [UInt8]
            package let contentType: String
        }
    }
}
