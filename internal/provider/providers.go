package provider

// ispdb is where hosts and login names are from.
const ispdb = "Thunderbird's list (github.com/thunderbird/autoconfig)"

const mb = 1_000_000 // as providers count

var google = &SignIn{
	Kind: "google", Auth: "https://accounts.google.com/o/oauth2/v2/auth", Token: "https://oauth2.googleapis.com/token",
	IMAPScopes: []string{"https://mail.google.com/"}, POP3Scopes: []string{"https://mail.google.com/"},
	Extra: map[string]string{"access_type": "offline", "prompt": "consent"},
}

var microsoft = &SignIn{
	Kind: "microsoft", Auth: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
	Token: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token", Device: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode",
	IMAPScopes: []string{"https://outlook.office.com/IMAP.AccessAsUser.All", "offline_access"},
	POP3Scopes: []string{"https://outlook.office.com/POP.AccessAsUser.All", "offline_access"},
	AppScopes:  []string{"https://outlook.office365.com/.default"},
}

var basicDisabled = Refusal{
	Words: []string{"basic authentication is disabled", "logindisabled", "basicauthblocked"}, Code: "auth_basic_disabled",
	What: "Microsoft no longer accepts passwords over IMAP and POP3",
	Do:   `set auth = "oauth2" for this account, then: mailstow auth login {account}      (man mailstow-oauth2)`,
}

var notConnected = Refusal{
	Words: []string{"authenticated but not connected"},
	What:  "the sign-in is good, but not for this mailbox",
	Why:   "IMAP may be off for the mailbox, the token may be another user's, or it may lack the permission for IMAP.",
	Do:    "switch IMAP on for the mailbox; see that the address is the mailbox's; then: mailstow auth login {account}",
}

func netease(name, title, domain string) *Provider {
	return &Provider{
		Name: name, Title: title, Domains: []string{domain},
		IMAP: []string{"imaps://imap." + domain}, POP3: []string{"pop3s://pop." + domain},
		Password: Code, Page: "https://mail." + domain,
		Hides: title + " may show programs recent mail alone; see its settings for POP3/SMTP/IMAP",
		Refusals: []Refusal{{
			Words: []string{"login error or password error", "login fail", "unable to log on", "authentication failed", "er.login"}, Code: "auth_code_needed",
			What: "imap." + domain + " refused the login",
			Why:  title + " wants an authorization code (授权码), not the mail password, and IMAP must be switched on.",
			Do:   "https://mail." + domain + ", 设置, POP3/SMTP/IMAP: switch on IMAP, create a code, then: mailstow auth login {account}",
		}, {
			Words: []string{"unsafe login"},
			What:  "imap." + domain + " calls the login unsafe",
			Why:   title + " serves only programs that tell their name (ID), or from places that it knows.",
			Do:    "log in once at https://mail." + domain + " from here, and try again",
		}},
		Facts: []Fact{
			{"Serves only programs that tell their name after the login (ID). mailstow always does.", "himalaya #651, offlineimap #696, imapclient #544", Vendor},
			{"Announces SASL-IR, and answers BAD to it. mailstow never uses it.", "himalaya #729", Vendor},
			{"The web settings may let programs see recent mail alone.", "not sourced", OneReport},
		},
	}
}

var all = []*Provider{
	{
		Name: "gmail", Title: "Gmail", Domains: []string{"gmail.com", "googlemail.com"}, MX: []string{"google.com", "googlemail.com"},
		IMAP: []string{"imaps://imap.gmail.com"}, POP3: []string{"pop3s://pop.gmail.com"},
		Password: AppPassword, Page: "https://myaccount.google.com/apppasswords", SignIn: google,
		Limits: Limits{DailyDownload: 2500 * mb, DailyPOP3: 1250 * mb, DailyUpload: 500 * mb, Connections: 4, Message: 35_651_584, Shown: []int{1000, 2000, 5000, 10000}},
		Refusals: []Refusal{{
			Words: []string{"application-specific password required", "invalid credentials", "username and password not accepted"}, Code: "auth_app_password",
			What: "Google does not accept the account password for IMAP",
			Do:   "create an app password at https://myaccount.google.com/apppasswords and store it: mailstow auth login {account}",
		}, {
			Words: []string{"web login required", "please log in via your web browser"},
			What:  "Google wants you to sign in with a browser first",
			Do:    "sign in at https://mail.google.com, and try again; or use OAuth2",
		}},
		Facts: []Fact{
			{"Shows labels as folders: the same message in several of them and in All Mail. It is downloaded once.", "imapsync FAQ.Gmail; developers.google.com, IMAP extensions", Vendor},
			{"Allows about 2,500 MB a day to be read, and 500 MB to be stored; then it locks the account for up to 24 hours. mailstow stops in time and goes on the next day.", "efoldering's knowledge base quoting Google; imapsync FAQ.Gmail", Several},
			{"Allows 15 connections. mailstow uses 4.", "imapsync #61, wildduck #35", Several},
			{"Can be set to show just 1,000, 2,000, 5,000 or 10,000 messages of a folder. mailstow warns of a folder with exactly so many.", "Gmail API, ImapSettings.maxFolderSize", Vendor},
			{"Removing a message from a folder takes its label off; trim moves to the trash.", "imapsync FAQ.Gmail", Vendor},
			{"Over POP3 shows a message once, and hides others. Use IMAP.", "wanderlust #118, mikel/mail #1251", Several},
		},
	},
	{
		Name: "microsoft365", Title: "Microsoft 365", MX: []string{"mail.protection.outlook.com", "mx.microsoft"},
		IMAP: []string{"imaps://outlook.office365.com"}, POP3: []string{"pop3s://outlook.office365.com"},
		Password: NoPassword, SignIn: microsoft,
		Limits:   Limits{Connections: 4},
		Refusals: []Refusal{basicDisabled, notConnected},
		Facts: []Fact{
			{"Tells no quota, no roles of folders and no sizes over IMAP: give trim's quota in the config file.", "MailKit #1437, #2016", Vendor},
			{"Announces IMAP4rev2 to some, and gets it wrong. mailstow never uses it.", "MailKit #2016", OneReport},
			{"Ends a session when its token has expired, after about an hour. mailstow renews it and goes on.", "imapsync #250, imap-backup #198", Vendor},
			{"Asks for a pause when it is throttled. mailstow makes it.", "imapsync FAQ.Office365", Several},
			{"Replaces the refresh token each time; one that is not used for 90 days ends. mailstow stores the new one.", "odoo #109213, sasl-xoauth2 #30", Several},
		},
	},
	{
		Name: "outlook", Title: "Outlook.com", Domains: []string{"outlook.com", "hotmail.com", "live.com", "msn.com", "outlook.de", "hotmail.de", "hotmail.fr", "hotmail.co.uk", "live.de", "live.nl", "outlook.fr"},
		IMAP: []string{"imaps://outlook.office365.com"}, POP3: []string{"pop3s://outlook.office365.com"},
		Password: NoPassword, SignIn: microsoft, Page: "https://outlook.live.com/mail/0/options/mail/accounts/popImap",
		Limits:   Limits{Connections: 4},
		Refusals: []Refusal{basicDisabled, notConnected},
		Facts: []Fact{
			{"IMAP and POP3 have to be switched on in the settings of Outlook.com.", "email-oauth2-proxy README", Several},
			{"A sign-in that is not used for 90 days ends.", "odoo #109213", Several},
		},
	},
	{
		Name: "yahoo", Title: "Yahoo", Domains: []string{"yahoo.com", "yahoo.de", "yahoo.fr", "yahoo.co.uk", "yahoo.es", "yahoo.it", "ymail.com", "rocketmail.com", "myyahoo.com"},
		IMAP: []string{"imaps://export.imap.mail.yahoo.com", "imaps://imap.mail.yahoo.com"}, POP3: []string{"pop3s://pop.mail.yahoo.com"},
		Password: AppPassword, Page: "https://login.yahoo.com/account/security",
		Hides:  "imap.mail.yahoo.com shows 10,000 messages of a folder; mailstow backs up from export.imap.mail.yahoo.com, which shows more and is read-only",
		Limits: Limits{Connections: 2, Shown: []int{10000}},
		Refusals: []Refusal{{
			Words: []string{"authenticationfailed", "invalid credentials", "login invalid"}, Code: "auth_app_password",
			What: "Yahoo refused the login",
			Why:  "Yahoo wants an app password, not the account's password.",
			Do:   "create one at https://login.yahoo.com/account/security and store it: mailstow auth login {account}",
		}},
		Facts: []Fact{
			{"imap.mail.yahoo.com shows the newest 10,000 messages of a folder; export.imap.mail.yahoo.com shows more, and is read-only. mailstow backs up from the second, and trims on the first.", "thunderbird/autoconfig PR #71, bichon #144", Vendor},
			{"Takes at most 1,000 messages in a command (MESSAGELIMIT). mailstow obeys.", "senders.yahooinc.com; RFC 9738", Vendor},
			{"Bears few connections. mailstow uses 2.", "imapflow #75", OneReport},
		},
	},
	{
		Name: "aol", Title: "AOL", Domains: []string{"aol.com", "aol.de", "aim.com"},
		IMAP: []string{"imaps://imap.aol.com"}, POP3: []string{"pop3s://pop.aol.com"},
		Password: AppPassword, Page: "https://login.aol.com/account/security", Limits: Limits{Connections: 2, Shown: []int{10000}},
		Facts: []Fact{{"As Yahoo, which runs it.", ispdb, Vendor}},
	},
	{
		Name: "icloud", Title: "iCloud", Domains: []string{"icloud.com", "me.com", "mac.com"},
		IMAP: []string{"imaps://imap.mail.me.com"}, LocalUser: true, Password: AppPassword, Page: "https://account.apple.com",
		Limits: Limits{Message: 20 * mb},
		Facts: []Fact{
			{"The login name is the address without @ and domain; where that is refused, try user = the whole address.", ispdb + "; himalaya README", Vendor},
			{"Has no POP3.", "support.apple.com/102198", Vendor},
		},
	},
	{
		Name: "fastmail", Title: "Fastmail", Domains: []string{"fastmail.com", "fastmail.fm"}, MX: []string{"messagingengine.com"},
		IMAP: []string{"imaps://imap.fastmail.com"}, POP3: []string{"pop3s://pop.fastmail.com"}, Password: AppPassword, Page: "https://app.fastmail.com/settings/security/devices",
		Facts: []Fact{{"Wants an app password for mail programs.", "himalaya README", Several}},
	},
	netease("163", "163", "163.com"),
	netease("126", "126", "126.com"),
	netease("yeah", "yeah.net", "yeah.net"),
	{
		Name: "qq", Title: "QQ", Domains: []string{"qq.com", "foxmail.com", "vip.qq.com"},
		IMAP: []string{"imaps://imap.qq.com"}, POP3: []string{"pop3s://pop.qq.com"}, Password: Code, Page: "https://mail.qq.com",
		Hides: "QQ shows programs recent mail alone until you change Settings, Account, fetch: all",
		Refusals: []Refusal{{
			Words: []string{"login fail", "authorization code", "授权码", "authentication failed"}, Code: "auth_code_needed",
			What: "imap.qq.com refused the login",
			Why:  "QQ wants an authorization code (授权码), not the QQ password; all codes end when that password changes.",
			Do:   "https://mail.qq.com, 设置, 账号: switch on IMAP, create a code, then: mailstow auth login {account}",
		}},
		Facts: []Fact{
			{"Shows programs recent mail alone until its settings say otherwise (Settings, Account, fetch: all).", "blog.zhheo.com; BatchAttachmentDownloader #5", Several},
		},
	},
	{
		Name: "gmx", Title: "GMX", Domains: []string{"gmx.net", "gmx.de", "gmx.at", "gmx.ch"},
		IMAP: []string{"imaps://imap.gmx.net"}, POP3: []string{"pop3s://pop.gmx.net"},
		Refusals: []Refusal{gmxOff("GMX", "https://www.gmx.net")},
		Facts:    []Fact{{"POP3 and IMAP are off until they are switched on in the web settings, and go off again when unused; the server then says that the password is wrong.", "YAM #638 quoting GMX", Vendor}},
	},
	{
		Name: "gmx.com", Title: "GMX", Domains: []string{"gmx.com", "gmx.us", "gmx.co.uk", "gmx.fr"},
		IMAP: []string{"imaps://imap.gmx.com"}, POP3: []string{"pop3s://pop.gmx.com"},
		Refusals: []Refusal{gmxOff("GMX", "https://www.gmx.com")},
		Facts:    []Fact{{"POP3 and IMAP are off until they are switched on in the web settings.", ispdb, Vendor}},
	},
	{
		Name: "web.de", Title: "WEB.DE", Domains: []string{"web.de"}, LocalUser: true,
		IMAP: []string{"imaps://imap.web.de"}, POP3: []string{"pop3s://pop3.web.de"},
		Refusals: []Refusal{gmxOff("WEB.DE", "https://web.de")},
		Facts:    []Fact{{"The login name is the address without @web.de. POP3 and IMAP are off until they are switched on in the web settings.", ispdb, Vendor}},
	},
	{
		Name: "t-online", Title: "T-Online", Domains: []string{"t-online.de", "magenta.de"},
		IMAP: []string{"imaps://secureimap.t-online.de"}, POP3: []string{"pop3s://securepop.t-online.de"}, Password: OwnPassword, Page: "https://email.t-online.de",
		Facts: []Fact{{"Wants a password of its own for e-mail.", ispdb, Vendor}},
	},
	{
		Name: "yandex", Title: "Yandex", Domains: []string{"yandex.com", "yandex.ru", "ya.ru", "yandex.by", "yandex.kz"}, MX: []string{"mx.yandex.net", "mx.yandex.ru"},
		IMAP: []string{"imaps://imap.yandex.com"}, POP3: []string{"pop3s://pop.yandex.com"}, Password: AppPassword, Page: "https://id.yandex.com/security/app-passwords",
		Refusals: []Refusal{{
			Words: []string{"invalid credentials or imap is disabled"}, What: "Yandex refused the login",
			Why: "The password is not an app password, or IMAP is switched off in the settings.", Do: "switch on IMAP, create an app password at https://id.yandex.com/security/app-passwords, then: mailstow auth login {account}",
		}},
		Facts: []Fact{{"Says the same of a wrong password and of IMAP that is off.", "Mailspring #904", Vendor}},
	},
	{
		Name: "mail.ru", Title: "Mail.ru", Domains: []string{"mail.ru", "inbox.ru", "list.ru", "bk.ru", "internet.ru"},
		IMAP: []string{"imaps://imap.mail.ru"}, POP3: []string{"pop3s://pop.mail.ru"}, Password: AppPassword, Page: "https://account.mail.ru/user/2-step-auth/passwords/",
		Facts: []Fact{{"Wants an app password.", ispdb, Vendor}},
	},
	{
		Name: "zoho", Title: "Zoho", Domains: []string{"zoho.com", "zohomail.com"},
		IMAP: []string{"imaps://imap.zoho.com"}, POP3: []string{"pop3s://pop.zoho.com"}, Password: AppPassword, Page: "https://accounts.zoho.com/home#security/app_password",
		Facts: []Fact{{"Accounts of other regions have hosts of their own: imap.zoho.eu, .in, .jp, .com.au.", ispdb, Vendor}},
	},
	{
		Name: "naver", Title: "Naver", Domains: []string{"naver.com"},
		IMAP: []string{"imaps://imap.naver.com"}, POP3: []string{"pop3s://pop.naver.com"},
		Facts: []Fact{{"IMAP has to be switched on in the web settings.", ispdb, Vendor}},
	},
	{
		Name: "strato", Title: "Strato", MX: []string{"rzone.de"},
		IMAP: []string{"imaps://imap.strato.de"}, POP3: []string{"pop3s://pop3.strato.de"},
		Facts: []Fact{{"Accepts IMAP4rev2, and then lists nothing. mailstow never uses it.", "email-mcp #91", OneReport}},
	},
	{
		Name: "protonbridge", Title: "Proton Mail Bridge",
		IMAP:  []string{"imap://127.0.0.1:1143"},
		Facts: []Fact{{"Runs on your own machine, has a password of its own, and shows a certificate that it has made: give its fingerprint, tls_fingerprint = \"...\".", "msgvault #211, himalaya README", Several}},
	},
}

func gmxOff(title, page string) Refusal {
	return Refusal{
		Words: []string{"authentication failed", "authenticationfailed", "authentication credentials invalid"},
		What:  title + " refused the login",
		Why:   "the password is wrong, or access by mail programs is switched off: it is at first, and after some time without use.",
		Do:    page + ", settings, POP3/IMAP: allow access, and try again",
	}
}
