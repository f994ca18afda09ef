//! The rules of routing by name, in the order in which they apply: this table is the one place that says the order.
//!
//! The functions that route ([`crate::admission`], [`crate::routing_key`], [`crate::route`]) note each rule that matched in a [`Fired`]; what
//! the rules have to say is theirs. `ops/doc/routing-rules.md` is this table for people, written from it; the numbers are those of the oracle
//! (R01 to R42 of the recorded HAProxy).

use std::fmt;

/// Makes the enum and everything that is said of a rule from one table.
macro_rules! rules {
    ($($stage:ident $title:literal { $($rule:ident $name:literal $numbers:tt $text:literal)+ })+) => {
        /// What a rule belongs to; the stages follow each other.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Stage {
            $(#[doc = $title] $stage,)+
        }

        impl Stage {
            /// All of them, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$stage),+];

            /// What it is about.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$stage => $title,)+ }
            }
        }

        /// A rule. Its number is its place in the order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule {
            $($(#[doc = $text] $rule,)+)+
        }

        impl Rule {
            /// All of them, in the order in which they apply.
            pub const ALL: &'static [Self] = &[$($(Self::$rule),+),+];

            /// Its name, which stays the same from version to version.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($(Self::$rule => $name,)+)+ }
            }

            /// What it says, in a sentence.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $($(Self::$rule => $text,)+)+ }
            }

            /// The oracle's rules that it follows, by their numbers; none where it is ours alone.
            #[must_use]
            pub const fn follows(self) -> &'static [u8] {
                match self { $($(Self::$rule => &$numbers,)+)+ }
            }

            /// Where it belongs.
            #[must_use]
            pub const fn stage(self) -> Stage {
                match self { $($(Self::$rule => Stage::$stage,)+)+ }
            }
        }
    };
}

rules! {
    Head "the request's head" {
        ConnectMethod "connect-method" [28] "CONNECT asks for a tunnel to anywhere: 400."
        TargetForm "target-form" [1, 28] "The target is neither a path nor a URL with a path: 400."
        HostsDiffer "hosts-differ" [1] "Two Host lines differ, or Host and the target's authority: 400."
        HttpsRedirect "https-redirect" [] "The listener redirects, and it is no challenge of ACME: 301 or 308 to https."
        DeniedUserAgent "denied-user-agent" [3] "A User-Agent holds one of `denied_user_agents`: 403."
        DeniedReferer "denied-referer" [4] "A Referer holds one of `denied_referers`: 429."
        RefererBan "referer-ban" [4] "The ban list `domain` names a Referer's URL or domain: 429."
        TargetBytes "target-bytes" [1] "The target holds a byte that is no visible ASCII character: 400."
    }
    Key "the routing key" {
        HealthPath "health-path" [8, 11, 15] "The path begins as one of `health`: no tenant, no room, and signaling."
        NotATenant "not-a-tenant" [8] "The first folder is one of `not_group`: no tenant."
        TenantFromPath "tenant-from-path" [8] "The first folder is the tenant."
        NotARoom "not-a-room" [11] "The path ends as one of `not_room_ends` or is in a folder of assets: no room."
        RoomParameter "room-parameter" [5, 6] "The query has the parameter `room_parameter`: its value is the room."
        EmptyRoom "empty-room" [7] "That value is empty: no room, whatever the path says."
        TrailingSlash "trailing-slash" [10] "The path ends in a slash: as without it (compat: a room of its own)."
        RoomFromPath "room-from-path" [9] "The last segment of the path is the room."
        ClientHeaders "client-headers" [26] "Compat: the client's own X-Room, X-Group or X-StickTokenFlag counts."
        LastCommaPart "last-comma-part" [13, 14] "Compat: of tenant or room counts what follows the last comma."
        PercentSign "percent-sign" [12] "Each `%25` of the token becomes `%`."
        ReleaseOverride "release-override" [17] "`release=` has a value: no pin counts, and a room makes an entry."
        SignalingPath "signaling-path" [15] "The path ends as one of `service_ends`: a room makes an entry."
        HostPrefix "host-prefix" [15] "The host begins as one of `service_hosts`: a room makes an entry."
        StickFlag "stick-flag" [16] "A room's page has the parameter `stick_flag`: it makes an entry."
        TokenTooLong "token-too-long" [29] "The token has more than 1024 bytes: 400 (compat: no entry)."
        HeadTooLarge "head-too-large" [1, 29] "Compat: the head is larger than HAProxy's buffer: 400 or 500."
    }
    Ban "bans: the first list that says anything counts" {
        UnbanTenant "unban-tenant" [20] "`unban_prefix` has the longest beginning of the tenant."
        BanSubstring "ban-substring" [20] "`substr` has a part of `tenant___room`."
        BanTenantPrefix "ban-tenant-prefix" [20] "`prefix` has the longest beginning of the tenant."
        BanRoomPrefix "ban-room-prefix" [20] "`prefix` has the longest beginning of the room."
        BanTenantExact "ban-tenant-exact" [20] "`exact` has the tenant, with its slash."
        BanRoomExact "ban-room-exact" [20] "`exact` has the room."
        BanTenant "ban-tenant" [20] "`tenant` has the tenant."
        BanRoom "ban-room" [20] "`room` has the room."
        BanHiddenRoom "ban-hidden-room" [7] "The room that is banned is the path's, behind an empty parameter."
        BanDenied "ban-denied" [21] "It is banned, and the target has the room parameter: 403."
        BanRedirect "ban-redirect" [21] "It is banned, and has none: 302 to `/`."
    }
    Choice "the decision" {
        Pool "pool" [22] "The path belongs to one of `[[pools]]`: its servers take turns."
        PoolCookie "pool-cookie" [] "The pool sticks on a cookie of the request: its entry's server, if usable."
        NamedShardPath "named-shard-path" [23] "The first folder is a shard's name: that shard, whatever else is said."
        NamedShardSuffix "named-shard-suffix" [23] "The room ends in `_SHARD`: that shard, whatever else is said."
        Entry "entry" [30] "The stick table has the conference on a shard that can be used."
        EntryUnusable "entry-unusable" [36, 39, 40] "It has it on a shard that is in maint, was tried in vain or is not listed."
        AskedRelease "asked-release" [17, 18] "`release=` names a release with a usable shard."
        AskedShard "asked-shard" [18] "`release=` or the pin names a shard."
        TenantPin "tenant-pin" [19, 24] "The tenant is pinned to a release with a usable shard."
        NotServed "not-served" [18, 24] "What `release=` or the pin names cannot be used: the live release counts."
        LiveRelease "live-release" [24, 25] "The live release counts; a shard's name stands for that shard."
        NoLiveRelease "no-live-release" [25] "There is no live release that has shards: 503."
        FirstJoin "first-join" [31] "It makes the conference's entry: the key's home decides."
        Move "move" [36, 39] "It moves the conference's entry: the key's home decides."
        BoundedLoad "bounded-load" [35] "A shard beyond its share of conferences gets no new one."
        TokenHash "token-hash" [33] "The token's hash chooses among the shards of this region."
        NoToken "no-token" [34] "There is no token: the shards of this region take turns."
        FallbackRegion "fallback-region" [38] "None of them can be used: the release's first one elsewhere stands in."
        FallbackRelease "fallback-release" [38] "None of the release can be used: the first of another release stands in."
        OnlySuspects "only-suspects" [39] "All of them failed here a moment ago: they are taken all the same."
        OnlyByPeers "only-by-peers" [] "None is reached from here, but peers reach some: one of these, by a peer."
        TriedInVain "tried-in-vain" [23, 39] "The only server that counts was tried in vain: 503."
        NoShard "no-shard" [38] "No shard takes new conferences: 503."
    }
}

// A rule is a bit of a `Fired`.
const _: () = assert!(Rule::ALL.len() <= 64);

/// The rules that matched for one request.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Fired(u64);

impl Fired {
    /// This one matched.
    pub const fn note(&mut self, rule: Rule) {
        self.0 |= 1 << rule as u8;
    }

    /// So did all of these.
    pub const fn join(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether this one matched.
    #[must_use]
    pub const fn has(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u8) != 0
    }

    /// Those that matched, in the order in which they apply.
    pub fn iter(self) -> impl Iterator<Item = Rule> {
        Rule::ALL.iter().copied().filter(move |rule| self.has(*rule))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Fired {
    /// The names with commas between them, `-` for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("-");
        }
        for (index, rule) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(rule.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Rule::name)).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests;
