//! What an announced project or ticket leads to: the table of spec section 11 as one pure function.

use crate::domain::account::Status;
use crate::domain::order::{self, Access};

/// Which announcements of a client that is activated are followed by an upload request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reminder {
    #[default]
    Never,
    EachProject,
    EachTicket,
}

/// The three switches of client.ini.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Switches {
    /// An account is made where none is.
    pub create: bool,
    /// Activation mails are sent, not kept as drafts.
    pub send: bool,
    pub reminder: Reminder,
}

/// One account of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub status: Status,
    /// Has logged in once, or has a credential that an operator set.
    pub is_activated: bool,
}

/// What is new in an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// Open after the announcement: a closed one opens again only when something changes.
    pub is_open: bool,
    pub is_new_project: bool,
    pub new_tickets: usize,
}

impl News {
    #[must_use]
    pub const fn is_nothing(self) -> bool {
        !self.is_new_project && self.new_tickets == 0
    }
}

/// Whether and how an activation mail is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invitation {
    No,
    Draft,
    Send,
}

/// What upload requests are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadRequests {
    None,
    /// One for the project.
    Project,
    /// One for each new ticket.
    Tickets,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub access: Access,
    pub creates_account: bool,
    pub invitation: Invitation,
    pub requests: UploadRequests,
    /// For the person who asks why.
    pub reason: &'static str,
}

/// Decides. `accounts` are the client's, oldest first: mails concern the oldest active one.
#[must_use]
pub fn decide(is_meant: bool, accounts: &[Standing], switches: Switches, news: News) -> Decision {
    let nothing = Decision {
        access: Access::NotMeant,
        creates_account: false,
        invitation: Invitation::No,
        requests: UploadRequests::None,
        reason: "",
    };
    let invitation = match (news.is_nothing(), switches.send) {
        (true, _) => Invitation::No,
        (false, true) => Invitation::Send,
        (false, false) => Invitation::Draft,
    };
    let statuses: Vec<Status> = accounts.iter().map(|account| account.status).collect();
    let is_active = |account: &&Standing| account.status == Status::Active;
    let active = match (order::access(is_meant, &statuses), accounts.iter().find(is_active)) {
        (Access::NotMeant, _) => {
            let reason = "the client is not meant for the portal (create_hotfolder is off)";
            return Decision { reason, ..nothing };
        }
        (Access::Inactive, _) => {
            let reason = "the client's account is inactive";
            return Decision { access: Access::Inactive, reason, ..nothing };
        }
        (Access::Ok, Some(active)) => active,
        (Access::NoAccessYet, _) | (Access::Ok, None) => return without_account(switches, news),
    };
    if !active.is_activated {
        let reason = "the client's account is active, but not activated yet";
        return Decision { access: Access::Ok, invitation, reason, ..nothing };
    }
    let requests = match switches.reminder {
        Reminder::EachProject if news.is_new_project => UploadRequests::Project,
        Reminder::EachTicket if news.new_tickets > 0 => UploadRequests::Tickets,
        Reminder::Never | Reminder::EachProject | Reminder::EachTicket => UploadRequests::None,
    };
    Decision {
        access: Access::Ok,
        requests,
        reason: "the client's account is active and activated",
        ..nothing
    }
}

/// The client has no account: the switch decides.
fn without_account(switches: Switches, news: News) -> Decision {
    let nothing = Decision {
        access: Access::NoAccessYet,
        creates_account: false,
        invitation: Invitation::No,
        requests: UploadRequests::None,
        reason: "the client has no account, and portal_create_uplogin_automatically is 0",
    };
    if !news.is_open {
        let reason = "the project is closed, and the announcement says nothing new";
        return Decision { reason, ..nothing };
    }
    if !switches.create {
        return nothing;
    }
    Decision {
        access: Access::Ok,
        creates_account: true,
        // The announcement may be old news: the switch was off when it came first.
        invitation: if switches.send { Invitation::Send } else { Invitation::Draft },
        reason: "the client had no account: one is made from the system default",
        ..nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW_PROJECT: News = News { is_open: true, is_new_project: true, new_tickets: 0 };
    const NEW_TICKETS: News = News { is_open: true, is_new_project: false, new_tickets: 2 };
    const BOTH: News = News { is_open: true, is_new_project: true, new_tickets: 1 };
    const NO_NEWS: News = News { is_open: true, is_new_project: false, new_tickets: 0 };
    const INACTIVE: Standing = Standing { status: Status::Inactive, is_activated: true };
    const INVITED: Standing = Standing { status: Status::Active, is_activated: false };
    const ACTIVATED: Standing = Standing { status: Status::Active, is_activated: true };

    fn switches(create: bool, send: bool, reminder: Reminder) -> Switches {
        Switches { create, send, reminder }
    }

    fn all_switches() -> Vec<Switches> {
        let mut all = Vec::new();
        for create in [false, true] {
            for send in [false, true] {
                for reminder in [Reminder::Never, Reminder::EachProject, Reminder::EachTicket] {
                    all.push(switches(create, send, reminder));
                }
            }
        }
        all
    }

    #[track_caller]
    fn check(
        (is_meant, accounts): (bool, &[Standing]),
        switches: Switches,
        news: News,
        expect: (Access, bool, Invitation, UploadRequests),
    ) {
        let got = decide(is_meant, accounts, switches, news);
        let shown = (got.access, got.creates_account, got.invitation, got.requests);
        assert_eq!(shown, expect, "{switches:?} {news:?}");
        assert!(!got.reason.is_empty());
    }

    #[test]
    fn a_client_that_is_not_meant_gets_nothing() {
        for switches in all_switches() {
            for accounts in [&[][..], &[INACTIVE], &[INVITED], &[ACTIVATED]] {
                let nothing = (Access::NotMeant, false, Invitation::No, UploadRequests::None);
                check((false, accounts), switches, BOTH, nothing);
            }
        }
    }

    #[test]
    fn without_an_account_the_create_switch_decides() {
        for switches in all_switches() {
            let invitation = if switches.send { Invitation::Send } else { Invitation::Draft };
            let expect = if switches.create {
                (Access::Ok, true, invitation, UploadRequests::None)
            } else {
                (Access::NoAccessYet, false, Invitation::No, UploadRequests::None)
            };
            for news in [NEW_PROJECT, NEW_TICKETS, BOTH, NO_NEWS] {
                check((true, &[]), switches, news, expect);
            }
        }
    }

    #[test]
    fn a_closed_project_makes_no_account() {
        let closed = News { is_open: false, ..NO_NEWS };
        for switches in all_switches() {
            let expect = (Access::NoAccessYet, false, Invitation::No, UploadRequests::None);
            check((true, &[]), switches, closed, expect);
        }
    }

    #[test]
    fn an_inactive_account_gets_no_folder_and_no_mail() {
        for switches in all_switches() {
            let expect = (Access::Inactive, false, Invitation::No, UploadRequests::None);
            check((true, &[INACTIVE]), switches, BOTH, expect);
        }
    }

    #[test]
    fn an_account_that_is_not_activated_is_invited() {
        for switches in all_switches() {
            let invitation = if switches.send { Invitation::Send } else { Invitation::Draft };
            for news in [NEW_PROJECT, NEW_TICKETS, BOTH] {
                let expect = (Access::Ok, false, invitation, UploadRequests::None);
                check((true, &[INVITED]), switches, news, expect);
                check((true, &[INACTIVE, INVITED, ACTIVATED]), switches, news, expect);
            }
            let quiet = (Access::Ok, false, Invitation::No, UploadRequests::None);
            check((true, &[INVITED]), switches, NO_NEWS, quiet);
        }
    }

    #[test]
    fn an_activated_account_is_reminded_as_the_switch_says() {
        for switches in all_switches() {
            for news in [NEW_PROJECT, NEW_TICKETS, BOTH, NO_NEWS] {
                let requests = match switches.reminder {
                    Reminder::Never => UploadRequests::None,
                    Reminder::EachProject if news.is_new_project => UploadRequests::Project,
                    Reminder::EachProject => UploadRequests::None,
                    Reminder::EachTicket if news.new_tickets > 0 => UploadRequests::Tickets,
                    Reminder::EachTicket => UploadRequests::None,
                };
                let expect = (Access::Ok, false, Invitation::No, requests);
                check((true, &[ACTIVATED]), switches, news, expect);
                check((true, &[INACTIVE, ACTIVATED]), switches, news, expect);
            }
        }
    }
}
