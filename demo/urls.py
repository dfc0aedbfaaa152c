"""The player's address."""

from django.urls import path

from demo.views import player

app_name = "demo"
urlpatterns = [path("", player, name="player")]
